"""`tsdf-ray pretrain` on a folder of pictures, small enough for seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from photo_folders import write_photos
from typer.testing import CliRunner

from tsdf_ray.cli import app
from tsdf_ray.cli.pretrain import Lines
from tsdf_ray.errors import Stopped
from tsdf_ray.game.control import StopFlag
from tsdf_ray.generators import load_family
from tsdf_ray.generators.pretrain import Progress
from tsdf_ray.testing.tiny import tiny_faces

TINY = (
    "settings={widths: [8, 8], blocks: 1, discriminator_widths: [8, 8], classifier_width: 4}",
    "classifier_steps=2",
    "train.precision=float32",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", tiny_faces(30))


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    small = ["--source", "folder", "--data", str(data), "--size", "32", "--photos", "8", "--steps", "3", "--batch", "4"]
    return ["pretrain", str(out), *small, *(f"--set={change}" for change in TINY), *more]


def test_train_then_resume(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, arguments(data, out))
    assert result.exit_code == 0, result.output
    assert "generator: step 3/3, left 0 s" in result.stderr
    assert f"weights: {out / 'generator.safetensors'}" in result.stdout
    assert load_family(out / "generator.safetensors").name == "editor"
    assert (out / "samples" / "step-0000003.png").is_file()
    again = CliRunner().invoke(app, arguments(data, out))
    assert again.exit_code == 2
    assert "holds a training already" in again.stderr
    resumed = CliRunner().invoke(app, arguments(data, out, "--resume"))
    assert resumed.exit_code == 0, resumed.output
    other = CliRunner().invoke(app, arguments(data, out, "--resume", "--seed", "5"))
    assert other.exit_code == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--family", "stargun"], "stargan"),
        (["--source", "celebs"], "source"),
        (
            ["--set", "train.learning_rate=0"],
            "--set train.learning_rate=0: train.learning_rate: must be greater than 0",
        ),
        (["--set", "sed=1"], "--set sed=1: sed"),
        (["--set", "settings.widths=[8, 0]"], "widths"),
        (["--photos", "5000"], "lower"),
    ],
)
def test_mistakes(more: list[str], words: str, data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, arguments(data, tmp_path / "out", *more))
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_lines_come_now_and_then_and_the_wish_to_stop_is_heard(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    flag = StopFlag("stopped; --resume goes on")
    lines = Lines(flag, 5.0, lambda: now)
    for step in range(1, 11):
        now = float(step)
        lines(Progress("generator", step, 10, {"g": 0.5}, 10.0 - step))
    shown = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in shown] == ["1/10,", "6/10,", "10/10,"]
    flag.ask()
    with pytest.raises(Stopped, match="--resume"):
        lines(Progress("generator", 10, 10, {}, 0.0))
