"""RAY_ADDRESS is the default of --address, and nothing more."""

from __future__ import annotations

from pathlib import Path

import pytest

import tsdf_ray
from tsdf_ray.address import cluster_address, jobs_address
from tsdf_ray.errors import UserError


@pytest.mark.parametrize(
    ("given", "environment", "executor", "found"),
    [
        (None, None, "ray", None),
        (None, "", "ray", None),
        (None, "10.0.0.1:6379", "ray", "10.0.0.1:6379"),
        ("10.0.0.2:6379", "10.0.0.1:6379", "ray", "10.0.0.2:6379"),
        ("local", "10.0.0.1:6379", "ray", None),
        (None, "local", "ray", None),
        (None, "10.0.0.1:6379", "inprocess", None),
        (None, "http://10.0.0.1:8265", "inprocess", None),
        ("10.0.0.1:6379", None, "inprocess", "10.0.0.1:6379"),
    ],
)
def test_what_is_joined(
    given: str | None, environment: str | None, executor: str, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    assert cluster_address(given, executor) == found


def test_a_dashboard_cannot_be_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--address http://head:8265: is a dashboard"):
        cluster_address("http://head:8265")
    monkeypatch.setenv("RAY_ADDRESS", "https://head")
    with pytest.raises(UserError, match="RAY_ADDRESS https://head: is a dashboard"):
        cluster_address(None)


@pytest.mark.parametrize("given", ["", " "])
def test_an_address_that_was_left_empty_starts_nothing_here(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(UserError, match="--address: is empty"):
        cluster_address(given)


def test_where_jobs_go(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--address: say where"):
        jobs_address(None)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(UserError, match=r"RAY_ADDRESS 10\.0\.0\.1:6379: jobs go to"):
        jobs_address(None)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265/")
    assert jobs_address(None) == "http://head:8265"
    assert jobs_address("https://other") == "https://other"


def test_in_process_ignores_the_environment_and_refuses_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tsdf_ray.api as api

    asked: list[str | None] = []

    def stop(executor: str, address: str | None) -> None:
        asked.append(address)
        raise UserError("far enough")

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(UserError, match="--address needs --executor ray"):
        tsdf_ray.play("smoke", tmp_path / "run", executor="inprocess", address="10.0.0.1:6379")
    monkeypatch.setattr(api, "supply_of", stop)
    for executor in ("inprocess", "ray"):
        with pytest.raises(UserError, match="far enough"):
            tsdf_ray.play("smoke", tmp_path / "run", executor=executor)
    assert asked == [None, "10.0.0.1:6379"]
    assert not (tmp_path / "run").exists()
