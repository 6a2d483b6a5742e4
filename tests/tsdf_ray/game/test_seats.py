"""Roles in their seats: in a crew, on a device, and on a device that they share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tsdf_ray.crew import ALONE, Crew, Seat
from tsdf_ray.game.evaluator import EvaluatorRole
from tsdf_ray.game.executor import run_step
from tsdf_ray.game.materials import load_materials
from tsdf_ray.game.players import AttackerRole, DefenderRole
from tsdf_ray.game.role import Role
from tsdf_ray.game.spec import MatchSpec, all_matches
from tsdf_ray.scenario import load_scenario
from tsdf_ray.testing.crews import in_crew

TESTS = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_device_gets_all_it_needs_and_keeps_nothing_it_must_not() -> None:
    """Every defence, detector and family, the evaluator and a round of the smoke race, in a process of its own."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(TESTS / "steps_on_a_device.py")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "19 of 19 alike" in done.stdout


class Places(nn.Module):
    """A model that notes where it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def to(self, device: Any) -> Places:  # type: ignore[override]
        self.sent.append(device)
        return self


class Stepping(Role):
    """A role with a model it keeps."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat)
        self.model = self.keep(Places())

    def step(self, round: int, fails: bool) -> list[str]:
        if fails:
            raise ValueError("a step that fails")
        return list(self.model.sent)


@pytest.fixture
def match() -> MatchSpec:
    return all_matches(load_scenario("smoke"))[0]


def test_kept_models_are_on_the_device_from_the_start(match: MatchSpec) -> None:
    role = Stepping(Seat(device="cuda"))
    assert run_step(role, match, "step", 1, (False,))[0] == ["cuda"]
    assert role.model.sent == ["cuda"]


def test_on_a_shared_device_they_are_there_while_a_step_runs(match: MatchSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(len(role.model.sent)))
    role = Stepping(Seat(device="cuda", shares_device=True))
    assert role.model.sent == []
    assert run_step(role, match, "step", 1, (False,))[0] == ["cuda"]
    assert role.model.sent == ["cuda", "cpu"]
    with pytest.raises(ValueError, match="fails"):
        run_step(role, match, "step", 1, (True,))
    assert role.model.sent == ["cuda", "cpu"] * 2
    assert emptied == [2, 4]  # after the models have left


@pytest.mark.slow
def test_a_round_of_groups_is_a_round(match: MatchSpec) -> None:
    """Learn, publish, study, prepare and judge with two and three workers; the retraining is another test's."""
    scenario = load_scenario("smoke", ("micro_batch=3",))
    spec = MatchSpec(scenario.as_json(), match.defender, match.attacker, match.seed)
    materials = load_materials(scenario, spec.seed)
    shown = materials.generator if spec.shows_last_round else None

    def round_of(crew: Crew | None) -> list[bytes]:
        seat = ALONE if crew is None else Seat(crew)
        defender, attacker, judge = (
            kind(spec, materials, seat) for kind in (DefenderRole, AttackerRole, EvaluatorRole)
        )
        learned = defender.learn(1, shown)
        published = defender.publish(1, learned, shown)
        studied = attacker.study(1, published)
        prepared = attacker.prepare(1, published, studied)
        before = judge.before(1, materials.generator, published, studied)
        arrays = [learned.tensors["w"], published.collectable.pixels_BCHW, published.evaluation.pixels_BCHW]
        arrays += [prepared.boxes_N4, prepared.photos.pixels_BCHW, *before.samples.values()]
        return [np.ascontiguousarray(array).tobytes() for array in arrays] + [repr(before.rows.to_pydict()).encode()]

    alone = round_of(None)
    for size in (2, 3):
        for got in in_crew(size, round_of):
            assert got == alone
