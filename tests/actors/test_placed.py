"""What the plan says fits is what Ray gives, and nobody sits where the plan does not say. GPUs are only claimed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("placed.py")
CASES: list[dict[str, Any]] = [
    {"cpus_per_match": 1, "gpus_per_match": 0.25},
    {"cpus_per_match": 1, "gpus_per_match": 1},
    {"cpus_per_match": 2, "gpus_per_match": 2},
    {"cpus_per_match": 3, "gpus_per_match": 3, "workers": {"defender": 3, "attacker": 3}},
    {"cpus_per_match": 5, "gpus_per_match": 5, "workers": {"defender": 5, "attacker": 5}},
    {"cpus_per_match": 2, "gpus_per_match": 2, "placement": "spread"},
    {"cpus_per_match": 2, "gpus_per_match": 1, "placement": "spread"},
    {"cpus_per_match": 4, "gpus_per_match": 5, "workers": {"defender": 3, "attacker": 2}, "placement": "spread"},
]
PLANNED = [16, 5, 2, 1, 1, 2, 4, 1]


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    """Of a head without GPUs, and nodes of three and of two."""
    asked = {"nodes": [[4, 0], [16, 3], [4, 2]], "cases": CASES}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=570,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_as_many_as_planned_and_no_more(found: list[dict[str, Any]]) -> None:
    assert [case["planned"] for case in found] == PLANNED
    assert [case["got"] for case in found] == PLANNED
    assert [case["one more"] for case in found] == [False] * len(CASES)


def test_workers_of_a_role_have_gpus_of_their_own(found: list[dict[str, Any]]) -> None:
    for case in found:
        for seats in case["seats"].values():
            assert len({tuple(seat) for seat in seats}) == len(seats)
            assert all(len(gpus.split(",")) == 1 and gpus for _, gpus in seats)


def test_roles_sit_together_or_apart(found: list[dict[str, Any]]) -> None:
    one = found[1]["seats"]
    assert one["defender"] == one["attacker"] == one["evaluator"], "turns on one GPU"
    for case in found[2], found[5]:
        assert case["seats"]["defender"] == case["seats"]["evaluator"] != case["seats"]["attacker"]
    group = found[3]["seats"]
    assert len({node for seats in group.values() for node, _ in seats}) == 1, "a group that fits is on one node"
    for case in found[5:]:
        nodes = {role: {node for node, _ in seats} for role, seats in case["seats"].items()}
        assert not nodes["defender"] & nodes["attacker"]
        assert nodes["evaluator"] <= nodes["defender"]
    assert found[7]["seats"]["evaluator"][0] in found[7]["seats"]["defender"], "two halves meet on one GPU"
