"""Files appear whole or not at all: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; on success it replaces `path`, on error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """UTF-8 text, whole."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, whole; NaN is refused (JSON has none)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_table(path: Path, table: pa.Table) -> None:
    """Parquet, whole."""
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_tensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]], notes: Mapping[str, str] | None = None) -> None:
    """Safetensors, whole; `notes` go into its metadata."""
    with whole_file(path) as temporary:
        arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        save_file(arrays, temporary, metadata=dict(notes or {}))
