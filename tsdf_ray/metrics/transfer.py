"""Transfer tables: a perturbation learned on some models, judged by others. Pure functions over tables/metrics.parquet.

Detectors: every published photo is judged by every detector of the evaluation; white-box are those the defender knows.
Generators: held-out ones in phase `transfer`, beside the attacker's own before it retrained (the one that the defender
could see); white-box are those the defender may learn on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

DETECTOR_METRICS = ("duq", "recall")
GENERATOR_METRICS = ("protection", "edit_success", "sr_mask", "l2_mask")

Table = dict[str, Any]


def transfer(metrics: pa.Table, scenario: Mapping[str, Any]) -> list[Table]:
    """Tables of the last round of every pair, pooled over seeds, as summary.json has them.

    Each is {of: "detectors" or "generators", metric, attacker, models, rows: {defender: {round, cells: {model: {value,
    low, high, n, white_box}}}}}; a cell whose value is null has its reason. Metrics and kinds without any row have no
    table, and generators none without a held-out one. `scenario` is the scenario as played, as plain data.
    """
    rows = metrics.filter(pc.and_(pc.is_null(metrics["seed"]), pc.equal(metrics["split"], "evaluation"))).to_pylist()
    attackers = dict.fromkeys(str(row["attacker"]) for row in rows)
    tables: list[Table] = []
    for attacker in attackers:
        own = [row for row in rows if row["attacker"] == attacker]
        for metric in DETECTOR_METRICS:
            cells = [(row, row["model"]) for row in own if (row["phase"], row["metric"]) == ("detection", metric)]
            tables += _table("detectors", metric, attacker, cells, lambda d, m: m in _entry(scenario, d, "detectors"))
        start = _label(str(scenario.get("generator", "generator")))
        held_out = {row["model"] for row in own if row["phase"] == "transfer"}
        for metric in GENERATOR_METRICS if held_out else ():
            named = [row for row in own if row["metric"] == metric and row["phase"] in {"before", "transfer"}]
            cells = [(row, start if row["phase"] == "before" else row["model"]) for row in named]
            tables += _table("generators", metric, attacker, cells, lambda d, m: _learned_on(scenario, d, m))
    return tables


def _table(
    of: str, metric: str, attacker: str, cells: list[tuple[dict[str, Any], str]], known: Callable[[str, str], bool]
) -> list[Table]:
    last: dict[str, int] = {}
    for row, _ in cells:
        last[row["defender"]] = max(last.get(row["defender"], 0), row["round"])
    rows: dict[str, Any] = {
        defender: {
            "round": last[defender],
            "cells": {
                model: _cell(row) | {"white_box": known(defender, model)}
                for row, model in cells
                if (row["defender"], row["round"]) == (defender, last[defender])
            },
        }
        for defender in last
    }
    models = list(dict.fromkeys(model for _, model in cells))
    return [{"of": of, "metric": metric, "attacker": attacker, "models": models, "rows": rows}] if rows else []


def _learned_on(scenario: Mapping[str, Any], defender: str, model: str) -> bool:
    """May the defender learn on this generator? Its knowledge says so, and its list of generators, if it has one."""
    entry = (scenario.get("defenders") or {}).get(defender) or {}
    names = {*_entry(scenario, defender, "generators")}
    if entry.get("surrogate"):
        names.add(str(entry["surrogate"]))
    elif scenario.get("generator"):
        names.add(str(scenario["generator"]))
    return model in {label for name in names for label in (name, _label(name))}


def _entry(scenario: Mapping[str, Any], defender: str, key: str) -> list[str]:
    return [str(name) for name in ((scenario.get("defenders") or {}).get(defender) or {}).get(key) or ()]


def _label(weights: str) -> str:
    """Packaged weights by their name, a file by its stem."""
    return Path(weights).stem if Path(weights).suffix else weights


def _cell(row: Mapping[str, Any]) -> dict[str, Any]:
    cell = {name: row[name] for name in ("value", "low", "high", "n")}
    return cell | ({"reason": row["reason"]} if row["reason"] is not None else {})
