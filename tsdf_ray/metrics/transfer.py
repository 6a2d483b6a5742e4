"""Transfer tables: a perturbation learned on some models, judged by others. Pure functions over tables/metrics.parquet.

Detectors: every published photo is judged by every detector of the evaluation; white-box are those the defender knows.
Generators: held-out ones in phase `transfer`, beside the attacker's own before it retrained (the one that the defender
could see); white-box are those the defender may learn on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tsdf_ray.files import labels_of

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
    attackers: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        attackers.setdefault(str(row["attacker"]), []).append(row)
    labels = _labels(scenario)
    tables: list[Table] = []
    for attacker, own in attackers.items():
        for metric in DETECTOR_METRICS:
            cells = [(row, row["model"]) for row in own if (row["phase"], row["metric"]) == ("detection", metric)]
            tables += _table("detectors", metric, attacker, cells, lambda d, m: m in _entry(scenario, d, "detectors"))
        start = labels.get(str(scenario.get("generator")), "generator")
        held_out = {row["model"] for row in own if row["phase"] == "transfer"}
        for metric in GENERATOR_METRICS if held_out else ():
            named = [row for row in own if row["metric"] == metric and row["phase"] in {"before", "transfer"}]
            cells = [(row, start if row["phase"] == "before" else row["model"]) for row in named]
            tables += _table("generators", metric, attacker, cells, lambda d, m: m in _learned_on(scenario, d, labels))
    return tables


def needed(metrics: pa.Table) -> pa.Table:
    """The rows that `transfer` looks at; of many pairs they are few."""
    metric, phase = metrics["metric"], metrics["phase"]

    def within(column: pa.ChunkedArray, names: tuple[str, ...]) -> Any:
        return pc.is_in(column, pa.array(names, pa.string()))

    detected = pc.and_(pc.equal(phase, "detection"), within(metric, DETECTOR_METRICS))
    forged = pc.and_(within(phase, ("before", "transfer")), within(metric, GENERATOR_METRICS))
    return metrics.filter(pc.and_(pc.is_null(metrics["seed"]), pc.or_(detected, forged)))


def _table(
    of: str, metric: str, attacker: str, cells: list[tuple[dict[str, Any], str]], known: Callable[[str, str], bool]
) -> list[Table]:
    last: dict[str, int] = {}
    for row, _ in cells:
        last[row["defender"]] = max(last.get(row["defender"], 0), row["round"])
    rows: dict[str, Any] = {defender: {"round": round, "cells": {}} for defender, round in last.items()}
    for row, model in cells:
        defender = row["defender"]
        if row["round"] == last[defender]:
            rows[defender]["cells"][model] = _cell(row) | {"white_box": known(defender, model)}
    models = list(dict.fromkeys(model for _, model in cells))
    return [{"of": of, "metric": metric, "attacker": attacker, "models": models, "rows": rows}] if rows else []


def _learned_on(scenario: Mapping[str, Any], defender: str, labels: Mapping[str, str]) -> set[str]:
    """Labels of the generators that the defender may learn on: its knowledge says so, and its list of generators."""
    entry = (scenario.get("defenders") or {}).get(defender) or {}
    own = entry.get("surrogate") or scenario.get("generator")
    names = [*_entry(scenario, defender, "generators"), *([str(own)] if own else [])]
    return {labels[name] for name in names}


def _labels(scenario: Mapping[str, Any]) -> dict[str, str]:
    """Of every generator that the scenario names."""
    named = [scenario.get("generator"), *((scenario.get("evaluation") or {}).get("generators") or ())]
    for entry in (scenario.get("defenders") or {}).values():
        named += [(entry or {}).get("surrogate"), *((entry or {}).get("generators") or ())]
    return labels_of(str(name) for name in named if name)


def _entry(scenario: Mapping[str, Any], defender: str, key: str) -> list[str]:
    return [str(name) for name in ((scenario.get("defenders") or {}).get(defender) or {}).get(key) or ()]


def _cell(row: Mapping[str, Any]) -> dict[str, Any]:
    cell = {name: row[name] for name in ("value", "low", "high", "n")}
    return cell | ({"reason": row["reason"]} if row["reason"] is not None else {})
