"""Nodes of a cluster that die in the middle of a match: several real raylets on this host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cluster_script import found_by, run_case
from saboteur import same_result

from tsdf_ray import api

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SCRIPT = "nodes.py"


def on_nodes(case: str, folder: Path) -> dict[str, Any]:
    """What a case printed."""
    return found_by(SCRIPT, case, folder)


@pytest.mark.slow
def test_a_node_dies_with_a_spare_one(tmp_path: Path, unbroken: Path) -> None:
    """The roles move to the other node."""
    found = on_nodes("spare", tmp_path)
    assert found["status"] == "complete", found
    assert any("built anew" in note for note in found["notes"])
    same_result(tmp_path / "run", unbroken)


@pytest.mark.slow
def test_a_node_dies_without_a_spare_one(tmp_path: Path, unbroken: Path) -> None:
    """The wait says what is missing and has an end; on another cluster the match goes on."""
    found = on_nodes("no-spare", tmp_path)
    assert found["status"] == "failed", found
    reason = found["failed"]["tsdf-vs-mtcnn-s0"]
    assert "no room for its process" in reason
    assert "1 CPU" in reason
    assert any("waiting for resources" in note and "missing" in note for note in found["notes"])
    assert api.resume(tmp_path / "run", executor="inprocess", report=False).status == "complete"
    same_result(tmp_path / "run", unbroken)


@pytest.mark.slow
def test_a_node_that_is_added_later_is_used(tmp_path: Path, unbroken: Path) -> None:
    """The match waits, and goes on there."""
    found = on_nodes("added-later", tmp_path)
    assert found["status"] == "complete", found
    same_result(tmp_path / "run", unbroken)


@pytest.mark.slow
def test_a_node_that_stops_answering(tmp_path: Path, unbroken: Path) -> None:
    """SIGSTOP of its raylet: it is given up; when it wakes, nobody listens to it."""
    found = on_nodes("stopped", tmp_path)
    assert found["status"] == "complete", found
    same_result(tmp_path / "run", unbroken)


@pytest.mark.slow
def test_the_head_dies(tmp_path: Path, unbroken: Path) -> None:
    """The driver cannot go on without it, and ends; the run goes on elsewhere after its last finished round."""
    done = run_case(SCRIPT, "head", tmp_path)
    assert done.returncode != 0
    assert len((tmp_path / "run" / "manifest.jsonl").read_text().splitlines()) == 1
    assert api.resume(tmp_path / "run", executor="inprocess", report=False).status == "complete"
    same_result(tmp_path / "run", unbroken)
