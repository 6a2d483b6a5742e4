"""One form for everything measured: rows per photo and edit, aggregated as sum(value) / sum(weight).

A share or a mean has weight 1 per row. A ratio carries numerator and denominator: DUQ is value TP - FP, weight clean
boxes. A row of weight 0 keeps its photo in the set (intervals and pairs need that) and does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

ROWS = pa.schema(
    [
        ("round", pa.int64()),
        ("judged_round", pa.int64()),
        ("step_share", pa.float64()),
        ("phase", pa.string()),
        ("split", pa.string()),
        ("model", pa.string()),
        ("photo", pa.string()),
        ("edit", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("weight", pa.float64()),
    ]
)
"""Columns an evaluator writes; the match puts seed, defender and attacker in front."""

Array = npt.NDArray[np.floating] | npt.NDArray[np.bool_] | npt.NDArray[np.integer]
Measures = Mapping[str, Array | tuple[Array, Array]]
"""Metric -> values (weight 1), or (values, weights)."""


@dataclass(frozen=True)
class Stage:
    """When something is measured: the first columns of its rows."""

    round: int
    """Of the perturbation w_s."""
    judged_round: int
    """Of the generator G_r."""
    phase: str
    """before, after, later, decay, reference, preparation, detection or visibility."""
    step_share: float = 1.0
    """Share of the round's retraining steps after which G was taken."""
    model: str = ""
    """What else tells rows apart: the reference's name, the detector, the held-out generator."""


def make_rows(
    stage: Stage,
    photos: Sequence[str],
    measures: Measures,
    edits: Sequence[str] | None = None,
    *,
    split: str = "evaluation",
    model: str | None = None,
) -> pa.Table:
    """Rows of several metrics over the same photos (and edits), of the schema `ROWS`.

    Raises ValueError when a value or weight is not finite: a metric that cannot be computed has weight 0.
    """
    n = len(photos)
    tables = []
    head = {
        "round": stage.round,
        "judged_round": stage.judged_round,
        "step_share": stage.step_share,
        "phase": stage.phase,
        "split": split,
        "model": stage.model if model is None else model,
    }
    for metric, measure in measures.items():
        value, weight = measure if isinstance(measure, tuple) else (measure, np.ones(n))
        columns = np.asarray(value, dtype=np.float64), np.asarray(weight, dtype=np.float64)
        if not all(column.shape == (n,) and np.isfinite(column).all() for column in columns):
            raise ValueError(f"metric {metric}: values and weights must be finite and one per photo and edit")
        constant = {name: pa.repeat(pa.scalar(given, ROWS.field(name).type), n) for name, given in head.items()}
        own = {
            "photo": pa.array(list(photos), pa.string()),
            "edit": pa.array(list(edits) if edits is not None else [""] * n, pa.string()),
            "metric": pa.repeat(pa.scalar(metric, pa.string()), n),
            "value": pa.array(columns[0]),
            "weight": pa.array(columns[1]),
        }
        tables.append(pa.table(constant | own, schema=ROWS))
    return pa.concat_tables(tables) if tables else ROWS.empty_table()


def restage(rows: pa.Table, stage: Stage, metrics: Sequence[str] | None = None) -> pa.Table:
    """The same measurement under another stage (what was measured before the first retraining step is also the decay
    curve's first point); `metrics` keeps only those named."""
    if metrics is not None:
        rows = rows.filter(pc.is_in(rows["metric"], pa.array(list(metrics), pa.string())))
    for name in ("round", "judged_round", "step_share", "phase"):
        column = pa.repeat(pa.scalar(getattr(stage, name), ROWS.field(name).type), rows.num_rows)
        rows = rows.set_column(rows.schema.get_field_index(name), ROWS.field(name), column)
    return rows
