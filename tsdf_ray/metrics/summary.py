"""The pairs of summary.json (docs/run-directory.md) from tables/metrics.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

Cell = dict[str, Any]

# Name in the summary -> (phase, metric); `before` is judged by G_{r-1}, the others by G_r.
WHERE = {
    "sr_mask_before": ("before", "sr_mask"),
    "sr_mask_after": ("after", "sr_mask"),
    "sr_mask_after_initial": ("after", "sr_mask_initial"),
    "edit_success_before": ("before", "edit_success"),
    "edit_success_after": ("after", "edit_success"),
    "hair_edit_success_before": ("before", "hair_edit_success"),
    "hair_edit_success_after": ("after", "hair_edit_success"),
    "persistence": ("decay", "persistence"),
    "half_life": ("decay", "half_life"),
    "yield": ("preparation", "yield"),
    "protection": ("after", "protection"),
    "psnr": ("visibility", "psnr"),
    "ssim": ("visibility", "ssim"),
}

OPTIONAL = {
    "lpips": ("visibility", "lpips"),
    "identity_similarity": ("after", "identity_similarity"),
    "identity_similarity_clean": ("after", "identity_similarity_clean"),
}
"""In the summary where their networks were given. So are the distances of sets, frechet_NAME and kernel_NAME, after
retraining; which stand there always, under the name of their network."""


class Race(Protocol):
    """What is needed of the scenario."""

    @property
    def pairs(self) -> list[tuple[str, str]]: ...
    @property
    def rounds(self) -> int: ...


def summarise(metrics: pa.Table, scenario: Race) -> dict[str, dict[str, Any]]:
    """{"defender/attacker": {metric: [a cell per round], "duq": {detector: [a cell per round]}}}, pooled over seeds.

    A cell is {value, low, high, n}, with `reason` where the value is null and `censored_above` where the metric has
    one; None for a round that was not played. Pairs without any row are left out.
    """
    pooled = metrics.filter(pc.is_null(metrics["seed"])).to_pylist()
    cells: dict[tuple[str, str], dict[tuple[str, str, str], dict[int, Cell]]] = {}
    for row in pooled:
        of_pair = cells.setdefault((row["defender"], row["attacker"]), {})
        for model in (row["model"], ""):
            of_pair.setdefault((row["phase"], row["metric"], model), {}).setdefault(row["round"], _cell(row))
    summary: dict[str, dict[str, Any]] = {}
    for pair in scenario.pairs:
        if pair not in cells:
            continue
        found = cells[pair]
        rounds = range(1, scenario.rounds + 1)
        entry: dict[str, Any] = {name: _series(found.get((*where, ""), {}), rounds) for name, where in WHERE.items()}
        more = [(name, ("after", name)) for phase, name, model in found if phase == "after" and not model]
        more = [(name, where) for name, where in more if name.startswith(("frechet_", "kernel_"))]
        more += [item for item in OPTIONAL.items() if (*item[1], "") in found]
        entry |= {name: _series(found[(*where, "")], rounds) for name, where in more}
        detectors = [model for phase, metric, model in found if (phase, metric) == ("detection", "duq") and model]
        entry["duq"] = {model: _series(found["detection", "duq", model], rounds) for model in detectors}
        summary["/".join(pair)] = entry
    return summary


def _series(by_round: dict[int, Cell], rounds: Sequence[int]) -> list[Cell | None]:
    return [by_round.get(r) for r in rounds]


def _cell(row: dict[str, Any]) -> Cell:
    cell = {name: row[name] for name in ("value", "low", "high", "n")}
    return cell | {name: row[name] for name in ("reason", "censored_above") if row[name] is not None}
