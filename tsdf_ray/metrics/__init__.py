"""What is measured: rows per photo and edit (`Evaluator`), values with intervals (`aggregate`), the summary."""

from __future__ import annotations

from tsdf_ray.metrics.aggregate import METRICS, aggregate, differences
from tsdf_ray.metrics.evaluator import Evaluator
from tsdf_ray.metrics.forgery import Judge
from tsdf_ray.metrics.rows import ROWS, Stage, make_rows, restage
from tsdf_ray.metrics.summary import summarise

__all__ = [
    "METRICS",
    "ROWS",
    "Evaluator",
    "Judge",
    "Stage",
    "aggregate",
    "differences",
    "make_rows",
    "restage",
    "summarise",
]
