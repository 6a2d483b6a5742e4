"""The contamination curve, from a summary written by hand."""

from __future__ import annotations

from typing import Any

from tsdf_ray.metrics.contamination import contamination, dose_groups


def attacker(protected: float, photos: int = 128, **more: Any) -> dict[str, Any]:
    return {"collect": {"photos": photos, "protected": protected}, "prepare": {"detectors": ["mtcnn"]}, **more}


def cell(value: float | None, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": None, "high": None, "n": 9, **more}


def test_attackers_that_differ_in_the_share_alone() -> None:
    attackers = {
        "all": attacker(1.0),
        "other_count": attacker(0.5, photos=64),
        "half": attacker(0.5),
        "none": attacker(0.0),
        "half_again": attacker(0.5),
        "trained_otherwise": attacker(0.25, retrain={"mode": "none"}),
        "and_all": attacker(1.0, retrain={"mode": "none"}),
        "default": {"collect": {"photos": 32}},
        "default_half": {"collect": {"photos": 32, "protected": 0.5}},
    }
    assert dose_groups(attackers) == [
        {"none": 0.0, "half": 0.5, "all": 1.0},
        {"trained_otherwise": 0.25, "and_all": 1.0},
        {"default_half": 0.5, "default": 1.0},
    ]
    assert dose_groups({"a": attacker(1.0), "b": attacker(1.0)}) == []


def test_points_are_the_last_round_played() -> None:
    none = cell(None, reason="nothing to lose")
    pairs = {
        "found/all": {"protection": [cell(0.9), cell(0.7)], "persistence": [cell(0.5), cell(0.4)]},
        "found/half": {"protection": [cell(0.8), None], "persistence": [none, None]},
        "tsdf/all": {"protection": [cell(0.95), cell(0.6)], "persistence": [cell(0.9), cell(0.8)]},
        "tsdf/other": {"protection": [cell(0.1)], "persistence": [cell(0.1)]},
    }
    curves = contamination(pairs, {"all": 1.0, "half": 0.5})
    found = {
        (c.defender, c.metric): [(p.share, p.attacker, None if p.cell is None else p.cell["value"]) for p in c.points]
        for c in curves
    }
    assert found == {
        ("found", "protection"): [(0.5, "half", 0.8), (1.0, "all", 0.7)],
        ("found", "persistence"): [(0.5, "half", None), (1.0, "all", 0.4)],
        ("tsdf", "protection"): [(0.5, "half", None), (1.0, "all", 0.6)],
        ("tsdf", "persistence"): [(0.5, "half", None), (1.0, "all", 0.8)],
    }
    missing = curves[1].points[0].cell
    assert missing is not None
    assert missing["reason"] == "nothing to lose"
