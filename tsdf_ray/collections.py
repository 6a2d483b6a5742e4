"""Photo collections that do not fit into memory: `protect`, `prepare`, `measure` by Ray, from and to Parquet.

The work is done by the package `actors`, which registers itself by entry point; see docs/collections.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from tsdf_ray.files import is_uri
from tsdf_ray.registry import look_up


class Written(Protocol):
    """What a job left in its folder."""

    out: str
    progress: Any
    """`parts`, `photos`, `computed` (parts of this call; the others were there)."""
    counts: dict[str, int]
    """Photos by what became of them."""
    means: dict[str, float]


class Measured(Protocol):
    """What `measure` found."""

    out: str
    progress: Any
    summary: list[dict[str, Any]]
    """phase, model, metric, value, low, high, n per row, and a reason where there is no value."""


class _Jobs(Protocol):
    def protect(self, source: str, out: str, **options: Any) -> Written: ...
    def prepare(self, source: str, out: str, **options: Any) -> Written: ...
    def measure(self, clean: str, protected: str, out: str, **options: Any) -> Measured: ...


def jobs() -> _Jobs:
    """The jobs, by Ray. Raises UserError when the package that does them cannot be imported."""
    none: dict[str, _Jobs] = {}
    return look_up("collections", "ray", none)


def is_collection(source: str, out: str) -> bool:
    """Whether photos are meant to be written as Parquet: a URI, Parquet by name, or a folder that holds some."""
    named = any(is_uri(text) or text.rstrip("/").endswith(".parquet") for text in (source, out))
    return named or any(Path(source).glob("*.parquet"))
