"""The doctor sees what is wrong with versions, names, weights and Ray's token."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from tsdf_ray import doctor
from tsdf_ray.cli import app
from tsdf_ray.doctor import Finding, check_origin, check_version, ray_token, read_pins
from tsdf_ray.errors import UserError

ROOT = Path(doctor.__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("requirement", "pin", "level", "words"),
    [
        ("typer>=0.1", None, "good", ""),
        ("typer>=900", None, "bad", "needs >=900"),
        ("typer>=0.1", "0.0.1", "warning", "tested with 0.0.1"),
        ("no-such-distribution-of-ours>=1", None, "bad", "is missing; install no-such-distribution-of-ours>=1"),
    ],
)
def test_versions(requirement: str, pin: str | None, level: str, words: str) -> None:
    finding = check_version(Requirement(requirement), pin)
    assert finding.level == level
    assert words in finding.text


def test_pins(tmp_path: Path) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text("# pins\nTorch==2.13.0  # exact\n\nray>=2\nnumpy==2.4.6\n")
    assert read_pins(path) == {"torch": "2.13.0", "numpy": "2.4.6"}
    assert read_pins(tmp_path / "absent.txt") == {}
    assert read_pins(ROOT / "constraints.txt")["torch"] == "2.13.0"


@pytest.mark.parametrize("name", doctor.OURS)
def test_our_names_are_ours(name: str) -> None:
    assert check_origin(name, ROOT) == Finding(f"package {name}", "good", "ours")


def test_a_clashing_name_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lookalike").mkdir()
    (tmp_path / "lookalike" / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = check_origin("lookalike", ROOT)
    assert finding.level == "bad"
    assert str(tmp_path / "lookalike") in finding.text
    assert check_origin("no_such_package_of_anybody", ROOT).level == "bad"


def test_ray_token(tmp_path: Path) -> None:
    def levels(environment: dict[str, str]) -> list[str]:
        return [finding.level for finding in ray_token(environment, tmp_path)]

    assert levels({}) == ["good", "good"]
    assert levels({"RAY_AUTH_MODE": "disabled"}) == ["warning"]
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("not a real token")
    token.chmod(0o644)
    (mode, found) = ray_token({}, tmp_path)
    assert mode.level == "good"
    assert found.level == "bad"
    assert f"chmod 600 {token}" in found.text
    token.chmod(0o600)
    assert levels({"RAY_AUTH_MODE": "token"}) == ["good", "good"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("")
    elsewhere.chmod(0o640)
    assert levels({"RAY_AUTH_TOKEN_PATH": str(elsewhere)}) == ["good", "bad"]
    assert "not a real token" not in str(list(ray_token({}, tmp_path)))


def test_missing_weights_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    import tsdf_ray.detectors as detectors

    def broken(name: str) -> None:
        raise UserError(f"{name}.safetensors: sha256 expected a, found b; reinstall tsdf-ray")

    monkeypatch.setattr(detectors, "load_detector", broken)
    found = {finding.subject: finding for finding in doctor._weights()}
    assert found["detector mtcnn"].level == "bad"
    assert "sha256" in found["detector mtcnn"].text


@pytest.mark.parametrize(("level", "code"), [("good", 0), ("warning", 0), ("bad", 1)])
def test_exit_code(level: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("thing", level, "as it is")])  # type: ignore[arg-type]
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == code
    assert "thing" in result.output


def test_this_installation() -> None:
    levels = {finding.subject: finding for finding in doctor.examine()}
    assert levels["Python"].text == sys.version.split()[0]
    assert not [f for f in levels.values() if f.level == "bad" and f.subject != "Ray token"]
