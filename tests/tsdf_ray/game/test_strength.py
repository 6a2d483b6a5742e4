"""The mark of a strong attacker, on real faces and the shipped editor: what `found` broke, a retraining mends."""

from __future__ import annotations

from pathlib import Path

import pytest

import tsdf_ray
from tsdf_ray.scenario import Scenario


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_hair_edits_recover_within_a_hundred_steps(tmp_path: Path) -> None:
    changes = ("rounds=1", "evaluation.references=[]")
    game = Scenario.load("quickstart", changes)
    game = game.model_copy(
        update={"defenders": {"found": game.defenders["found"]}, "attackers": {"mtcnn": game.attackers["mtcnn"]}}
    )
    run = tsdf_ray.play(game, tmp_path / "run", executor="inprocess", report=False)
    figures = run.summary["pairs"]["found/mtcnn"]
    assert figures["hair_edit_success_before"][0]["value"] <= 0.5
    assert figures["hair_edit_success_after"][0]["value"] >= 0.80
