"""Mistakes before a race: one message, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from tsdf_ray.cli import app
from tsdf_ray.generators import save_family
from tsdf_ray.scenario import Scenario
from tsdf_ray.store import rundir
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.testing.tiny import TINY_SIZE, tiny_editor, tiny_faces


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    """A scenario of tiny photos and a tiny generator; none of the packaged weights is needed to see its mistakes."""
    save_family(tmp_path / "tiny.safetensors", tiny_editor(0))
    photos = tiny_faces(24)
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = [",".join(["id", *photos.attributes])]
    for pixels, labels, name in zip(photos.pixels_BCHW, photos.labels_BA, photos.ids, strict=True):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{name}.png")
        rows.append(",".join([f"{name}.png", *map(str, labels)]))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"""\
name: mine
generator: {tmp_path / "tiny.safetensors"}
faces: {{source: folder, path: {folder}, size: {TINY_SIZE}, counts: {{defender: 4, attacker: 4, evaluation: 4}}}}
defenders: {{a: {{kind: none}}}}
attackers: {{b: {{collect: {{photos: 2}}}}}}
"""
    )
    return path


def play(scenario: Path | str, out: Path, *more: str) -> Any:
    return CliRunner().invoke(app, ["play", str(scenario), "--out", str(out), "--executor", "inprocess", *more])


def snapshot(root: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in root.rglob("*")}


MISTAKES = {
    "unknown key": (["--set", "roundz=2"], ["--set roundz=2: roundz: unknown key", "Did you mean 'rounds'"]),
    "wrong type": (["--set", "rounds=many"], ["rounds", "integer", "'many'"]),
    "out of range": (["--set", "rounds=0"], ["rounds", "greater than or equal to 1"]),
    "unknown defender": (["--set", "defenders.a.kind=shield"], ["defenders.a.kind", "'shield'", "found"]),
    "unknown detector": (["--set", "evaluation.detectors=[yolo]"], ["evaluation.detectors", "'yolo'", "mtcnn"]),
    "negative epsilon": (["--set", "defenders.a.epsilon=-0.05"], ["defenders.a.epsilon", "-0.05"]),
    "more GPUs than exist": (["--set", "resources.gpus_per_match=64"], ["gpus_per_match", "64 asked for", "lower it"]),
    "more CPUs than exist": (["--set", "resources.cpus_per_match=1024"], ["cpus_per_match", "1024", "lower it"]),
    "more photos than exist": (["--set", "faces.counts.attacker=500"], ["photos asked for", "lower faces.counts"]),
    "unknown generator": (["--set", "generator=no-such-weights"], ["no-such-weights"]),
    "unknown executor": (["--executor", "slurm"], ["slurm", "inprocess"]),
    "address without a cluster": (["--address", "10.0.0.1:6379"], ["--address", "--executor ray"]),
    "no such photos": (["--set", "faces.path=/nowhere/at/all"], ["/nowhere/at/all"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(mistake: str, scenario: Path, tmp_path: Path) -> None:
    more, words = MISTAKES[mistake]
    before = snapshot(tmp_path)
    result = play(scenario, tmp_path / "run", *more)
    assert result.exit_code == 2, result.output
    for word in words:
        assert word in result.stderr
    assert result.stdout == ""
    assert snapshot(tmp_path) == before


def test_duplicate_key_and_empty_file(scenario: Path, tmp_path: Path) -> None:
    scenario.write_text(scenario.read_text() + "name: again\n")
    result = play(scenario, tmp_path / "run")
    assert result.exit_code == 2
    assert f"{scenario}:6: key 'name' is given twice" in result.stderr
    scenario.write_text("")
    result = play(scenario, tmp_path / "run")
    assert result.exit_code == 2
    assert f"{scenario}: is empty" in result.stderr
    assert not (tmp_path / "run").exists()


def test_attribute_the_photos_do_not_have(scenario: Path, tmp_path: Path) -> None:
    labels = tmp_path / "photos" / "labels.csv"
    labels.write_text(labels.read_text().replace("Male", "Smiling", 1))
    result = play(scenario, tmp_path / "run")
    assert result.exit_code == 2
    assert "unknown attribute 'Male'" in result.stderr
    assert "Smiling" in result.stderr
    assert not (tmp_path / "run").exists()


def test_out_is_a_run_already(scenario: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    RunDirectory.create(out, Scenario.load(scenario)).close()
    before = snapshot(out)
    result = play(scenario, out)
    assert result.exit_code == 2
    assert f"tsdf-ray resume {out}" in result.stderr
    assert snapshot(out) == before


def test_out_that_cannot_be_written(scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert "is a file" in play(scenario, file).stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    assert "is not empty" in play(scenario, tmp_path / "full").stderr
    # Tests may run as root, whom no mode stops.
    monkeypatch.setattr(rundir.os, "access", lambda path, mode: False)
    result = play(scenario, tmp_path / "run")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert "choose another --out" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["resume", "report"])
def test_a_folder_that_is_no_run(command: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [command, str(tmp_path)])
    assert result.exit_code == 2
    assert "not a run directory" in result.stderr
    assert list(tmp_path.iterdir()) == []
