"""Transfer tables of the page: how a perturbation fares on models that its defender did not learn on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tsdf_ray.report.data import Run, Value
from tsdf_ray.report.tables import Entry, entry

LABELS = {
    "duq": "Detection (DUQ): 1 untouched, 0 hidden, below 0 flooded",
    "recall": "Recall: faces still found",
    "protection": "Protection: forgeries that fail",
    "edit_success": "Edits that succeed",
    "sr_mask": "Distorted forgeries (SR_mask)",
    "l2_mask": "L2_mask of forgeries",
}


@dataclass(frozen=True)
class TransferCell:
    """One defender judged by one model."""

    entry: Entry
    white_box: bool


@dataclass(frozen=True)
class TransferTable:
    """Rows are defenders, columns models; a cell is None where that was not measured."""

    title: str
    of: str
    """detectors or generators."""
    models: tuple[str, ...]
    rows: tuple[tuple[str, tuple[TransferCell | None, ...]], ...]
    open: bool
    """The first of each kind stands open in the page."""


def transfer_tables(run: Run) -> tuple[TransferTable, ...]:
    """The tables of summary.json, in its order; none for a run that has none."""
    tables: list[TransferTable] = []
    for table in run.summary.get("transfer") or ():
        first = all(earlier.of != table["of"] for earlier in tables)
        tables.append(_table(table, first))
    return tuple(tables)


def _table(table: dict[str, Any], opened: bool) -> TransferTable:
    metric, models = str(table["metric"]), tuple(str(name) for name in table["models"])
    rows = []
    for defender, row in table["rows"].items():
        found = [row["cells"].get(model) for model in models]
        cells = [None if c is None else TransferCell(entry(metric, Value.of(c)), bool(c["white_box"])) for c in found]
        rows.append((str(defender), tuple(cells)))
    title = f"{LABELS.get(metric, metric)}, against {table['attacker']}"
    return TransferTable(title, str(table["of"]), models, tuple(rows), opened)
