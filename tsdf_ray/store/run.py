"""A finished or unfinished run, for reading: what the Python API hands out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tsdf_ray.errors import UserError
from tsdf_ray.store.rundir import read_info


class Run:
    """Reads a run directory. Raises UserError when `path` is not one."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info = read_info(self.path)

    @property
    def status(self) -> str:
        """`running`, `complete`, `stopped` or `failed`."""
        return str(self.info["status"])

    @property
    def metrics(self) -> pa.Table:
        """tables/metrics.parquet (docs/run-directory.md); `.to_pandas()` for a data frame."""
        return self._table("metrics")

    @property
    def images(self) -> pa.Table:
        """tables/images.parquet: one row per photo, edit and metric."""
        return self._table("images")

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json."""
        return self._json("summary.json")

    @property
    def search(self) -> dict[str, Any]:
        """search.json of a search (docs/run-directory.md)."""
        return self._json("search.json")

    @property
    def trials(self) -> pa.Table:
        """tables/trials.parquet of a search: one row per trial."""
        return self._table("trials")

    def report(self) -> Path:
        """Write report.html and figures/ anew; returns the page."""
        from tsdf_ray.report import write_report

        return write_report(self.path)

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not path.exists():
            raise UserError(f"{path}: is not there yet; `tsdf-ray resume {self.path}` finishes the run")
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content

    def _table(self, name: str) -> pa.Table:
        path = self.path / "tables" / f"{name}.parquet"
        if not path.exists():
            raise UserError(f"{path}: is not there yet; `tsdf-ray resume {self.path}` finishes the run")
        return pq.read_table(path)
