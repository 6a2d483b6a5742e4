"""Digests of arrays and files: what a run records, what caches are keyed by, what is checked before use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

Arrays = Mapping[str, npt.NDArray[np.generic]]


def array_digest(arrays: Arrays | Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) over names, dtypes, shapes and bytes, in the order of the names; equal content, equal digest."""
    h = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name]
        array = value.detach().cpu().contiguous().numpy() if isinstance(value, torch.Tensor) else value
        array = np.ascontiguousarray(array)
        h.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        h.update(array.tobytes())
    return h.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
