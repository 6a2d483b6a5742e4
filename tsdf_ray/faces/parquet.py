"""Parquet: columns `id`, `image` (bytes of a photo, or a struct with `bytes`), attributes (0/1), and optionally `split`
(defender, attacker, evaluation) and `identity`. A file, or a folder of *.parquet files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tsdf_ray.errors import UserError
from tsdf_ray.faces.decode import BadPhoto
from tsdf_ray.faces.source import SPLITS, FaceSource, Index, Tally, unknown_attribute

_BATCH = 64
_RESERVED = frozenset({"id", "image", "split", "identity"})


class ParquetSource(FaceSource):
    """Faces in Parquet. Labels are read from their own columns; images stream by row group."""

    def __init__(self, path: Path, tally: Tally) -> None:
        super().__init__(tally)
        self.path = path
        self._place: dict[str, tuple[Path, int, int]] = {}

    def index(self, attributes: tuple[str, ...]) -> Index:
        """Read every column but `image`."""
        self._place.clear()
        ids: list[str] = []
        labels: list[tuple[int, ...]] = []
        splits: list[str | None] = []
        identities: list[str | None] = []
        for path in self._files():
            with _opened(path) as file:
                columns = self._columns(path, file.schema_arrow, attributes)
                row = 0
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=columns).to_pydict()
                    for k in range(file.metadata.row_group(group).num_rows):
                        record = {name: table[name][k] for name in columns}
                        try:
                            found = self._row(f"{path}, row {row}", record, attributes)
                        except BadPhoto as error:
                            self.tally.bad(error)
                        else:
                            key = str(record["id"])
                            self._place[key] = (path, group, k)
                            ids.append(key)
                            labels.append(found)
                            splits.append(record.get("split"))
                            identities.append(None if record.get("identity") is None else str(record["identity"]))
                        row += 1
        labels_NA = np.array(labels, dtype=np.uint8).reshape(len(ids), len(attributes))
        return Index(tuple(ids), labels_NA, attributes, tuple(splits), tuple(identities))

    def read(self, ids: Collection[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Row groups that hold none of `ids` are not read; the others stream in batches of 64 rows."""
        wanted: dict[tuple[Path, int], dict[int, str]] = defaultdict(dict)
        for key in ids:
            path, group, k = self._place[key]
            wanted[path, group][k] = key
        for path, group in sorted(wanted):
            rows = wanted[path, group]
            with _opened(path) as file:
                start = 0
                for batch in file.iter_batches(_BATCH, row_groups=[group], columns=["image"]):
                    for k in range(start, start + batch.num_rows):
                        if k in rows:
                            yield rows[k], partial(_bytes, batch.column(0)[k - start], rows[k])
                    start += batch.num_rows

    def _files(self) -> list[Path]:
        files = sorted(self.path.glob("*.parquet")) if self.path.is_dir() else [self.path]
        if not files or not files[0].is_file():
            raise UserError(
                f"{self.path}: no Parquet file there; set faces.path to one, or to a folder of *.parquet files"
            )
        return files

    def _columns(self, path: Path, schema: pa.Schema, attributes: tuple[str, ...]) -> list[str]:
        for needed in ("id", "image"):
            if needed not in schema.names:
                raise UserError(f"{path}: no column {needed!r}; it has: {', '.join(schema.names)}. Rename or add it")
        for name in attributes:
            if name not in schema.names or name in _RESERVED:
                raise unknown_attribute(str(path), name, [n for n in schema.names if n not in _RESERVED])
        optional = [name for name in ("split", "identity") if name in schema.names]
        return ["id", *optional, *attributes]

    def _row(self, where: str, record: dict[str, object], attributes: tuple[str, ...]) -> tuple[int, ...]:
        if record["id"] is None or not str(record["id"]):
            raise BadPhoto(where, "no id")
        if str(record["id"]) in self._place:
            raise BadPhoto(where, f"id {record['id']!r} is there twice")
        if "split" in record and record["split"] not in SPLITS:
            raise BadPhoto(where, f"split {record['split']!r}, expected one of {', '.join(SPLITS)}")
        for name in attributes:
            if record[name] not in (0, 1, -1):
                raise BadPhoto(where, f"{name} is {record[name]!r}, expected 0 or 1")
        return tuple(int(record[name] == 1) for name in attributes)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}); replace it") from error


def _bytes(cell: pa.Scalar, name: str) -> bytes:
    value = cell.as_py()
    if isinstance(value, dict):  # Hugging Face data sets store {bytes, path}
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise BadPhoto(name, "the column 'image' holds no bytes here")
    return value
