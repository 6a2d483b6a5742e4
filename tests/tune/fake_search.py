"""A made-up folder of a search: the trials through the trials table, and summaries as `play` would leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search import SearchConfig
from tsdf_ray.store.trials import Report, TrialsTable
from tune.analysis import report_values

ATTACKERS = ("finetune", "mtcnn")
OBJECTIVES: dict[str, dict[str, Any]] = {
    "protection": {"metric": "protection", "over": "worst"},
    "starving": {"metric": "yield", "attackers": ["finetune"], "direction": "minimize"},
    "ssim": {"metric": "ssim"},
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "defenders.tsdf.epsilon": {"kind": "loguniform", "low": 0.02, "high": 0.12},
    "defenders.tsdf.tau": {"kind": "uniform", "low": 0.0, "high": 0.12},
    "defenders.tsdf.beta": {"kind": "loguniform", "low": 0.5, "high": 50.0},
    "defenders.tsdf.share.fraction": {"kind": "uniform", "low": 0.0, "high": 0.9},
    "defenders.tsdf.poison.steps": {"kind": "int", "low": 4, "high": 48},
    "defenders.tsdf.poison.rule": {"kind": "choice", "values": ["sign", "adam"]},
    "defenders.tsdf.poison.lr": {
        "kind": "loguniform", "low": 1e-4, "high": 1e-1, "when": {"defenders.tsdf.poison.rule": "adam"},
    },
}  # fmt: skip
PAPER = {
    "defenders.tsdf.epsilon": 0.05,
    "defenders.tsdf.tau": 0.03,
    "defenders.tsdf.beta": 5.0,
    "defenders.tsdf.share.fraction": 0.05,
    "defenders.tsdf.poison.steps": 24,
    "defenders.tsdf.poison.rule": "sign",
}


def section(objectives: int = 2, trials: int = 24, **changes: Any) -> dict[str, Any]:
    """A section `search` with the first `objectives` of three."""
    return {
        "parameters": PARAMETERS,
        "objectives": dict(list(OBJECTIVES.items())[:objectives]),
        "constraints": {"visibility": {"metric": "psnr", "at_least": 32.0}},
        "scheduler": {"kind": "asha"},
        "start": {"points": {"paper": PAPER}},
        "trials": trials,
        "replay": {"best": 3},
    } | changes


def scenario(search: dict[str, Any], name: str = "made-up") -> Scenario:
    """Two defenders, of which `tsdf` is searched, against two attackers."""
    return Scenario.model_validate(
        {
            "name": name,
            "title": "What is the best trade?",
            "seeds": [0, 1],
            "rounds": 2,
            "faces": {"source": "sample", "size": 64},
            "defenders": {"tsdf": {"kind": "tsdf", "detectors": ["retinaface"]}, "found": {"kind": "found"}},
            "attackers": {name: {"prepare": {"detectors": ["retinaface"]}} for name in ATTACKERS},
            "search": search,
        }
    )


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """A random setting."""
    params: dict[str, Any] = {
        "defenders.tsdf.epsilon": float(np.exp(rng.uniform(np.log(0.02), np.log(0.12)))),
        "defenders.tsdf.tau": float(rng.uniform(0, 0.12)),
        "defenders.tsdf.beta": float(np.exp(rng.uniform(np.log(0.5), np.log(50)))),
        "defenders.tsdf.share.fraction": float(rng.uniform(0, 0.9)),
        "defenders.tsdf.poison.steps": int(rng.integers(4, 49)),
        "defenders.tsdf.poison.rule": str(rng.choice(["sign", "adam"])),
    }
    if params["defenders.tsdf.poison.rule"] == "adam":
        params["defenders.tsdf.poison.lr"] = float(np.exp(rng.uniform(np.log(1e-4), np.log(1e-1))))
    return params


def cell(value: float, half: float = 0.04) -> dict[str, Any]:
    """A cell of summary.json."""
    return {"value": value, "low": value - half, "high": value + half, "n": 96}


def outcome(params: dict[str, Any], rng: np.random.Generator, rounds: int, luck: float = 0.03) -> dict[str, Any]:
    """Metrics of a pair for a setting: a smooth hill over tau and the share, and noise."""
    epsilon, tau, share = (params[f"defenders.tsdf.{key}"] for key in ("epsilon", "tau", "share.fraction"))
    strength = np.sqrt(epsilon / 0.12)
    hill = float(np.exp(-(((tau - 0.05) / 0.04) ** 2) - ((share - 0.35) / 0.3) ** 2))
    series: dict[str, list[Any]] = {"protection": [], "yield": [], "psnr": [], "ssim": []}
    for r in range(rounds):
        protection = 0.25 + 0.6 * hill * strength - 0.08 * r + rng.normal(0, luck)
        series["protection"].append(cell(float(np.clip(protection, 0.02, 0.98))))
        series["yield"].append(cell(float(np.clip(1 - share * strength + rng.normal(0, luck), 0.02, 1))))
        series["psnr"].append(cell(-20 * np.log10(epsilon * 0.3), 0.1))
        series["ssim"].append(cell(float(1 - 1.4 * epsilon), 0.003))
    return {**series, "duq": {"retinaface": [cell(0.4)] * rounds}}


def summary(players: dict[str, dict[str, Any]], seed: int, rounds: int = 2) -> dict[str, Any]:
    """summary.json of a run in which every player meets both attackers."""
    rng = np.random.default_rng(seed)
    pairs = {f"{name}/{a}": outcome(params, rng, rounds) for name, params in players.items() for a in ATTACKERS}
    return {"schema": 1, "status": "complete", "seeds": [2, 3], "pairs": pairs, "transfer": []}


def make_search(
    root: Path,
    search: dict[str, Any] | None = None,
    *,
    status: str = "complete",
    replay: bool = True,
    baselines: bool = True,
    name: str = "made-up",
) -> Path:
    """A search whose trial 0 is the paper's point; every fourth is pruned, trial 5 failed, trial 6 has not ended."""
    search = section() if search is None else search
    made = scenario(search, name)
    root.mkdir(parents=True, exist_ok=True)
    (root / "scenario.yaml").write_text(made.as_yaml())
    info = {
        "status": status,
        "scenario": name,
        "digest": made.digest,
        "started": 1.79e9,
        "seconds": 734.0,
        "seeds": [0, 1],
    }
    (root / "run.json").write_text(json.dumps(info | {"versions": {"optuna": "5.0.0"}, "machine": {"cpus": 2}}))
    assert made.search is not None
    rng, config = np.random.default_rng(7), made.search
    table = TrialsTable(root / "trials.jsonl")
    for number in range(config.trials):
        params = dict(PAPER) if number == 0 else draw(rng)
        table.asked(params, "paper" if number == 0 else None)
        if number == 5:
            table.ended(5, "failed", "OutOfMemoryError: the actor <died> & left no result")
            continue
        pruned = number % 4 == 3
        for r in (1,) if pruned or number == 6 else (1, 2):
            table.reported(number, report(config, params, r, np.random.default_rng(100 + number)))
        if number != 6:
            table.ended(number, "pruned" if pruned else "complete", "below the rung after round 1" if pruned else None)
    if baselines:
        _run(root / "baselines", summary({"found": PAPER | {"defenders.tsdf.share.fraction": 0.9}}, 50))
    if replay:
        from tune.front import best_trials

        chosen = {f"trial_{t.number}": t.params for t in best_trials(config, table.trials, config.replay.best)[0]}
        _run(root / "replay", summary(chosen | {"paper": PAPER, "found": PAPER | {"defenders.tsdf.tau": 0.1}}, 51))
        for player in chosen:
            (root / "best").mkdir(exist_ok=True)
            (root / "best" / f"{player}.yaml").write_text("name: made-up\n")
    return root


def report(config: SearchConfig, params: dict[str, Any], round: int, rng: np.random.Generator) -> Report:
    """What a trial says after a round."""
    pairs = {f"tsdf/{attacker}": outcome(params, rng, round) for attacker in ATTACKERS}
    values, violations, _ = report_values(config, pairs, round)
    last = {
        pair: {name: cells[round - 1]["value"] for name, cells in metrics.items() if name != "duq"}
        for pair, metrics in pairs.items()
    }
    return Report(round, values, violations, last, 20.0)


def _run(root: Path, content: dict[str, Any]) -> None:
    root.mkdir()
    (root / "summary.json").write_text(json.dumps(content))
