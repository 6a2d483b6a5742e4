"""`protect` over collections, `prepare` and `measure` at the command line: which way a call goes, and what it says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from tsdf_ray import collections
from tsdf_ray.cli import app


@dataclass
class Recorded:
    """Stands for the jobs; the real ones are tested in tests/actors."""

    calls: list[tuple[str, tuple[str, ...], dict[str, Any]]] = field(default_factory=list)

    def _note(self, name: str, places: tuple[str, ...], options: dict[str, Any]) -> SimpleNamespace:
        options.pop("tell")("work", 1, 2)
        self.calls.append((name, places, options))
        progress = SimpleNamespace(parts=2, photos=300, computed=1)
        row = {
            "phase": "detection",
            "model": "mtcnn",
            "metric": "recall",
            "value": 0.5,
            "low": 0.4,
            "high": 0.6,
            "n": 9,
        }
        blank = row | {"metric": "precision", "value": None, "low": None, "high": None}
        counts, means = {"protected": 298, "without_face": 2}, {"psnr": 33.2}
        near = row | {"phase": "transfer", "metric": "frechet_judge", "value": 1.25}
        few = blank | {"phase": "transfer", "metric": "kernel_judge", "reason": "too few forgeries"}
        summary = [row, blank, near, few]
        return SimpleNamespace(out="OUT", progress=progress, counts=counts, means=means, summary=summary)

    def protect(self, *places: str, **options: Any) -> SimpleNamespace:
        return self._note("protect", places, options)

    def prepare(self, *places: str, **options: Any) -> SimpleNamespace:
        return self._note("prepare", places, options)

    def measure(self, *places: str, **options: Any) -> SimpleNamespace:
        return self._note("measure", places, options)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    made = Recorded()
    monkeypatch.setattr(collections, "jobs", lambda: made)
    return made


@pytest.mark.parametrize(
    "arguments",
    [
        ["s3://bucket/photos", "out"],
        ["photos", "gs://bucket/out"],
        ["photos", "out.parquet"],
        ["photos", "out", "--format", "parquet"],
    ],
)
def test_protect_writes_parquet_where_it_is_meant(recorded: Recorded, arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["protect", *arguments, "--workers", "3", "--part", "64", "--faces", "whole"])
    assert done.exit_code == 0, done.output
    ((name, places, options),) = recorded.calls
    assert (name, places) == ("protect", tuple(arguments[:2]))
    assert (options["workers"], options["part"], options["faces"], options["no_face"]) == (3, 64, "whole", "skip")
    assert "298 protected, 2 without face, mean PSNR 33.200; 1 of 2 parts computed now; OUT" in done.output


def test_a_folder_of_parquet_is_a_collection(recorded: Recorded, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    assert CliRunner().invoke(app, ["protect", str(tmp_path), "out"]).exit_code == 0
    assert recorded.calls[0][2]["part"] == 256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["s3://b/x", "out", "--format", "png"], "--format png"),
        (["s3://b/x", "out", "--on-bad", "stop"], "--on-bad stop: a collection is written while it is read"),
        (["s3://b/x", "out", "--table", "t.csv"], "--table"),
        (["photos", "out", "--workers", "2"], "--workers: goes with --format parquet"),
        (["photos", "out", "--address", "auto"], "--address: goes with --format parquet"),
    ],
)
def test_options_that_do_not_go_together(recorded: Recorded, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["protect", *arguments])
    assert done.exit_code == 2
    assert message in done.output
    assert not recorded.calls


def test_prepare_and_measure(recorded: Recorded) -> None:
    done = CliRunner().invoke(app, ["prepare", "in", "--out", "crops", "--attacker", "mtcnn"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["measure", "in", "prot", "--out", "rows", "--detector", "mtcnn"])
    assert done.exit_code == 0, done.output
    assert "[0.400, 0.600]" in done.output
    assert "precision" not in done.output, "what could not be measured is in the summary, not in the table"
    assert "1.250" in done.output
    assert "kernel_judge: not available (too few forgeries)" in done.output, "but for sets it is said why"
    prepared, measured = recorded.calls
    assert prepared[:2] == ("prepare", ("in", "crops"))
    assert (prepared[2]["scenario"], prepared[2]["attacker"]) == ("quickstart", "mtcnn")
    assert measured[:2] == ("measure", ("in", "prot", "rows"))
    assert (measured[2]["detectors"], measured[2]["size"], measured[2]["forgeries"]) == (("mtcnn",), 128, None)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["protect", "", "out"], "IN"),
        (["protect", "photos", ""], "OUT"),
        (["prepare", "photos", "--out", " "], "--out"),
        (["measure", "photos", "", "--out", "out"], "PROTECTED"),
    ],
)
def test_an_empty_place_is_not_the_current_folder(recorded: Recorded, arguments: list[str], name: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert done.stderr == f"error: {name}: is empty (a variable that is not set?); give a folder or a URI\n"
    assert not recorded.calls
