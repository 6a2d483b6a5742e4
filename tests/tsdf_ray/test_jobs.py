"""The text of a job: its name, its command, its result in a log full of other lines."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tsdf_ray.errors import UserError
from tsdf_ray.jobs import (
    Job,
    Outcome,
    SearchOutcome,
    latest,
    make_order,
    outcome_in,
    plain_lines,
    progress_in,
    submission_id,
)
from tsdf_ray.scenario import Scenario

GAME = Scenario.load("smoke")
OUTCOME = Outcome("/runs/a b", None, {"tsdf/mtcnn": {"protection": [None, {"value": 0.5}]}}, {"m": "line\nbreak"})

SEARCH = Scenario.load("sweep/separation-small")


def test_the_order_is_named_after_scenario_and_place() -> None:
    order = make_order(GAME, "/runs/a b; rm")
    assert order.id == submission_id(GAME.digest, "/runs/a b; rm")
    assert make_order(GAME, "/runs/other").id != order.id
    assert make_order(Scenario.load("smoke", ("rounds=1",)), "/runs/a b; rm").id != order.id
    assert shlex.split(order.entrypoint) == [
        "tsdf-ray", "play", "scenario.yaml", "--out", "/runs/a b; rm", "--resume", "--log-summary",
    ]  # fmt: skip
    assert make_order(GAME, "s3://bucket/run", "mine", report=False).entrypoint.endswith("--no-report")
    assert make_order(GAME, "s3://bucket/run", "mine").id == "mine"


def test_a_scenario_with_a_search_is_searched() -> None:
    order = make_order(SEARCH, "/runs/a", report=False)
    assert shlex.split(order.entrypoint) == [
        "tsdf-ray", "tune", "scenario.yaml", "--out", "/runs/a", "--resume", "--log-summary", "--no-report",
    ]  # fmt: skip
    played = make_order(Scenario.load("sweep/separation-small", ("search=null",)), "/runs/a")
    assert shlex.split(played.entrypoint)[1] == "play"
    assert played.id != order.id
    with pytest.raises(UserError, match="a search is written to a folder"):
        make_order(SEARCH, "s3://bucket/a")


def test_a_password_does_not_travel_in_a_command() -> None:
    with pytest.raises(UserError, match=r"^--out s3://bucket/run: whoever uses the cluster") as error:
        make_order(GAME, "s3://KEY:hidden/more@bucket/run")
    assert "hidden" not in str(error.value)
    order = make_order(GAME, "s3://bucket/run?endpoint_override=host:9000")
    assert order.metadata["out"] == "s3://bucket/run"


@pytest.mark.parametrize("game", [GAME, SEARCH], ids=["race", "search"])
def test_the_scenario_travels_as_it_is_played(game: Scenario, tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(make_order(game, "/runs/a").scenario)
    assert Scenario.load(tmp_path / "scenario.yaml").digest == game.digest


@pytest.mark.parametrize(("out", "name", "words"), [("runs/a", None, "--out runs/a"), ("/a", "a/b", "--submission-id")])
def test_mistakes(out: str, name: str | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_order(GAME, out, name)


def test_the_result_is_found_in_the_log() -> None:
    log = (
        "2026-01-01 00:00:00,000 INFO job_manager.py:581 -- Runtime env is setting up.\n"
        "Running entrypoint for job a: tsdf-ray play\n"
        "m: round 1/2: 3.0 s, left: 3 s\n[2026-01-01 00:00:00,000 W 1 1] of Ray's\n(raylet) as well\n"
        "waiting for resources: 8 GPUs\n"
        f"m: failed in round 2/2\n{OUTCOME.line()}\nlast \x1b[2J\n"
    )
    assert outcome_in(log) == OUTCOME
    assert outcome_in("nothing\n") is None
    assert outcome_in("tsdf-ray summary: {broken\n") is None
    assert outcome_in('tsdf-ray summary: {"place": "/x"}\n') is None
    assert outcome_in(OUTCOME.line().replace('{"tsdf/mtcnn"', '[{"tsdf/mtcnn"').replace("}]}}", "}]}}]")) is None
    hostile = outcome_in(OUTCOME.line().replace("tsdf/mtcnn", r"\u001b[2Jtsdf/mtcnn"))
    assert hostile is not None
    assert list(hostile.pairs) == [" [2Jtsdf/mtcnn"]
    told = ["m: round 1/2: 3.0 s, left: 3 s", "waiting for resources: 8 GPUs", "m: failed in round 2/2"]
    assert progress_in(log) == told
    assert progress_in("m: round 1/2\n") == ["m: round 1/2"]
    lines = list(plain_lines(log))
    assert lines[-1] == "last  [2J"
    assert not any("summary" in line for line in lines)


def test_the_result_of_a_search_is_found_in_the_log() -> None:
    cell = {"value": 0.5, "low": None, "high": None}
    setting = {"name": "trial_1\x1b[2J", "kind": "best", "searched": {"protection": cell}, "replayed": {}}
    sent = SearchOutcome("/runs/a", None, {"complete": 2}, ["protection"], [setting], None, ["line\nbreak"])
    got = outcome_in(f"2/2 trial 1: complete\n{sent.line()}\n")
    assert isinstance(got, SearchOutcome)
    assert got.settings == [setting | {"name": "trial_1 [2J"}]
    assert vars(got) | {"settings": []} == vars(sent) | {"settings": []}
    assert outcome_in('tsdf-ray summary: {"trials": {}}\n') is None


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (Job("a", "succeeded", 0), 0),
        (Job("a", "failed", 1), 1),
        (Job("a", "failed", 2), 2),
        (Job("a", "failed", -9), 137),
        (Job("a", "failed", None), 1),
        (Job("a", "failed", 143), 143),
        (Job("a", "stopped", None), 143),
    ],
)
def test_exit_codes(job: Job, code: int) -> None:
    assert job.code == code
    assert job.ended
    assert not Job("a", "running").ended


def test_the_latest_of_several_tries() -> None:
    class Known:
        def __init__(self, *ids: str) -> None:
            self.ids = ids

        def find(self, name: str) -> Job | None:
            return Job(name, "failed", 1) if name in self.ids else None

    assert latest(Known(), "a") == (None, "a")  # type: ignore[arg-type]
    job, name = latest(Known("a", "a-2"), "a")  # type: ignore[arg-type]
    assert job is not None
    assert (job.id, name) == ("a-2", "a-3")
