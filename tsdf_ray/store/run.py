"""A finished or unfinished run, for reading: what the Python API hands out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tsdf_ray.errors import UserError
from tsdf_ray.files import is_uri
from tsdf_ray.store.fetch import HEAD, fetch, fetch_results, same_run
from tsdf_ray.store.mirror import Mirror
from tsdf_ray.store.rundir import read_info


class Run:
    """Reads a run. Raises UserError when `path` is none."""

    def __init__(self, path: str | Path, place: str | None = None) -> None:
        """`path`: a folder, or a URI, of which what is asked for is fetched; `place`: what `resume` is given, if that
        is not `path`."""
        self._mirror = Mirror(str(path)) if is_uri(path) else None
        # Not where the run is played: a reader must not disturb the player.
        self.path = Path(path) if self._mirror is None else self._mirror.folder("reads")
        self.place = place or str(self._mirror or path)
        if self._mirror is not None:
            self._forget_another(self._mirror)
        self.info = read_info(self.path)

    def _forget_another(self, mirror: Mirror) -> None:
        """Fetch run.json; what was fetched of an earlier run with this URI goes."""
        before = self.path / "run.json"
        told = before.read_bytes() if before.exists() else None
        if not self._fetch("run.json"):
            raise UserError(f"{mirror}: is not a run (no run.json); give what `play --out` was given")
        if told is not None and not same_run(told, before.read_bytes()):
            shutil.rmtree(self.path)
            self._fetch("run.json")

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

        if self._mirror is None:
            return write_report(self.path)
        self._fetch(*HEAD, "summary.json", *(f"tables/{name}.parquet" for name in ("images", "metrics")))
        fetch_results(self._mirror, self.path)
        page = write_report(self.path)
        for path in [*sorted((self.path / "figures").glob("[!.]*")), page]:
            self._mirror.put(path, path.relative_to(self.path).as_posix())
        return page

    def _fetch(self, *names: str) -> list[str]:
        return fetch(self._mirror, self.path, names) if self._mirror is not None else []

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        self._fetch(name)
        if not path.exists():
            raise UserError(f"{path}: is not there yet; `tsdf-ray resume {self.place}` finishes the run")
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content

    def _table(self, name: str) -> pa.Table:
        path = self.path / "tables" / f"{name}.parquet"
        self._fetch(f"tables/{name}.parquet")
        if not path.exists():
            raise UserError(f"{path}: is not there yet; `tsdf-ray resume {self.place}` finishes the run")
        return pq.read_table(path)
