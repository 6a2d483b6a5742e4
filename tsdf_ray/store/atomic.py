"""Files appear whole or not at all: written beside their place, flushed to disk, then renamed.

A write that finds no room (or a disk that fails) is one `NotStored`, wherever in the store it happens.
"""

from __future__ import annotations

import errno
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import save_file

from tsdf_ray.errors import NotStored

_REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there")
_REMEDIES |= dict.fromkeys((errno.EIO, errno.EROFS, errno.ESTALE), "mend the disk or the mount")
"""Errors of the place, not of the program, and what to do."""


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Within the block, a full or failing disk raises NotStored, which names the folder of `path` and the remedy."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _number(error)
        if number not in _REMEDIES:
            raise
        raise NotStored(
            f"{path.parent}: {path.name} cannot be written ({os.strerror(number)}); {_REMEDIES[number]}, then go on "
            "(a run: with `tsdf-ray resume`, all finished rounds are whole)"
        ) from error


def _number(error: Exception) -> int:
    """The errno of an error of Python, Arrow or safetensors, which has it in its text alone; 0 where there is none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else 0


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path, nobody else's, in the same folder; on success it replaces `path`, on error it is removed.

    Raises NotStored when there is no room.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    with room_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def append(path: Path, text: str, sync: bool = True) -> None:
    """UTF-8 text at the end of a file, all of it or nothing; `sync`: on disk when this returns. Raises NotStored."""
    left = text.encode()
    with room_for(path), path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            while left:
                left = left[file.write(left) :]
            if sync:
                os.fsync(file.fileno())
        except BaseException:
            # Half a line would spoil the next one.
            with suppress(OSError):
                file.truncate(before)
            raise


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
