"""The event log of a run that was killed while it wrote a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsdf_ray.scenario import Scenario
from tsdf_ray.store import rundir
from tsdf_ray.store.rundir import RunDirectory


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        (b"", b""),
        (b'{"a": 1}', b""),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"b"', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"b": "longer than what is read at a time', b'{"a": 1}\n'),
        (b"\n{", b"\n"),
    ],
)
@pytest.mark.parametrize("tail", [1, 4, 9, 1 << 16])
def test_half_a_line_does_not_spoil_the_next(
    left: bytes, kept: bytes, tail: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunDirectory.create(tmp_path / "run", Scenario.load("smoke")).close()
    events = tmp_path / "run" / "events.jsonl"
    events.write_bytes(left)
    monkeypatch.setattr(rundir, "TAIL_BYTES", tail)
    run, _ = RunDirectory.open(tmp_path / "run")
    assert events.read_bytes() == kept
    run.log({"event": "next"})
    run.close()
    assert events.read_bytes() == kept + b'{"event": "next"}\n'
