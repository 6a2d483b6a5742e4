"""Small searches for tests: seconds per trial, on the packaged sample; and made-up reports where nothing is played."""

from __future__ import annotations

from typing import Any

from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search import SearchConfig
from tsdf_ray.store.trials import Report

FRACTION, TAU, CHOICE, STEPS, LR, RULE = (
    f"defenders.tsdf.{key}"
    for key in ("share.fraction", "tau", "share.choice", "poison.steps", "poison.lr", "poison.rule")
)
PARAMETERS: dict[str, dict[str, Any]] = {
    FRACTION: {"kind": "uniform", "low": 0.0, "high": 1.0},
    TAU: {"kind": "uniform", "low": 0.01, "high": 0.081},
    CHOICE: {"kind": "choice", "values": ["random", "weakest"]},
}
PAPER = {FRACTION: 0.0, TAU: 0.064, CHOICE: "random"}
OBJECTIVES: dict[str, dict[str, Any]] = {"protection": {"metric": "protection", "over": "worst"}}
TWO: dict[str, dict[str, Any]] = {**OBJECTIVES, "psnr": {"metric": "psnr"}}
CONSTRAINTS: dict[str, dict[str, Any]] = {"visible": {"metric": "psnr", "at_least": 25}}


def section(**changes: Any) -> dict[str, Any]:
    """A section `search` of three parameters and one objective."""
    search = {"parameters": PARAMETERS, "objectives": OBJECTIVES, "constraints": CONSTRAINTS, "trials": 5}
    return {**search, "storage": "memory", **changes}


def content(**changes: Any) -> dict[str, Any]:
    """A scenario of two defenders, of which `tsdf` is searched, against one attacker: two rounds in a few seconds."""
    return {
        "name": "tiny",
        "seeds": [0],
        "rounds": 2,
        "precision": "bfloat16",
        "faces": {"source": "sample", "size": 64, "counts": {"defender": 8, "attacker": 16, "evaluation": 6}},
        "defenders": {
            "found": {"kind": "found", "epsilon": 0.08},
            "tsdf": {
                "kind": "tsdf",
                "epsilon": 0.08,
                "detectors": ["retinaface"],
                "share": {"fraction": 0.5, "choice": "random"},
                "poison": {"steps": 4},
            },
        },
        "attackers": {
            "mtcnn": {
                "collect": {"photos": 8},
                "prepare": {"detectors": ["mtcnn"], "crop": "none", "on_miss": "drop"},
                "retrain": {"mode": "finetune", "train": {"steps": 4, "batch": 4}},
            }
        },
        "evaluation": {
            "detectors": ["retinaface"],
            "decay": [0.0, 1.0],
            "references": [],
            "resamples": 100,
            "samples": 1,
        },
        "search": section(),
    } | changes


def game(**changes: Any) -> Scenario:
    """`content` as a checked scenario."""
    return Scenario.model_validate(content(**changes))


def search_of(scenario: Scenario) -> SearchConfig:
    """Its section `search`, which it has."""
    assert scenario.search is not None
    return scenario.search


def report(
    search: SearchConfig, round: int, value: float, violations: dict[str, float] | None = None, **values: float
) -> Report:
    """A report in which every objective is `value`, or as `values` says, and every constraint is kept to."""
    found = {name: values.get(name, value) for name in search.objectives}
    kept = dict.fromkeys(search.constraints, -1.0)
    return Report(round, found, kept | (violations or {}), {}, 1.0)
