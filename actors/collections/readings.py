"""How the parts of a collection are read, as streams. Runs in tasks of their own: imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from actors.collections.places import Reader, opened
from tsdf_ray.errors import UserError
from tsdf_ray.storage import Place

LARGEST = 512 << 20
"""Bytes of a photo file, at most; as `tsdf_ray.faces.decode`."""
PHOTOS = pa.schema([("id", pa.string()), ("image", pa.large_binary()), ("problem", pa.string())])
"""What a part is read as, before the source's own labels. `problem` says why there is no image."""
READERS = 8
"""Photo files read at once in a task."""
STREAM_ROWS = 64
"""Of Parquet, at a time."""


class Reading(Protocol):
    """What one task streams: one or more parts."""

    @property
    def first(self) -> int:
        """Number of the first part."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Photos of each part."""

    @property
    def bytes(self) -> int:
        """Of the photos as they are stored."""

    def read(self, wanted: frozenset[int]) -> Iterator[tuple[int, pa.Table]]:
        """(part, its photos) of the parts wanted, in order. Raises UserError."""


@dataclass(frozen=True)
class PhotoFiles:
    """One part of a folder of photos."""

    folder: Place
    first: int
    """Number of the part."""
    names: tuple[str, ...]
    bytes: int

    @property
    def counts(self) -> tuple[int, ...]:
        """Photos of each part: there is one."""
        return (len(self.names),)

    def read(self, wanted: frozenset[int]) -> Iterator[tuple[int, pa.Table]]:
        """(part, its photos) when it is wanted. A file that has vanished since is a problem of its row.

        Raises UserError when object storage does not answer: that says nothing about the photo.
        """
        if self.first in wanted:
            with ThreadPoolExecutor(READERS) as threads:
                found = list(threads.map(_content, map(self.folder.child, self.names)))
            columns = [self.names, [content for content, _ in found], [problem for _, problem in found]]
            yield self.first, pa.table([pa.array(c, f.type) for c, f in zip(columns, PHOTOS, strict=True)], PHOTOS)


def _content(photo: Place) -> tuple[bytes | None, str | None]:
    """(bytes, None), or (None, what is wrong with the file)."""
    if photo.local is not None and photo.local.exists() and not photo.local.is_file():
        return None, "not a regular file"  # opening a pipe would wait for ever
    try:
        with Reader(photo) as file:
            if file.size > LARGEST:
                return None, f"{file.size >> 20} MiB, more than {LARGEST >> 20} MiB"
            return file.read(), None
    except FileNotFoundError:
        return None, "file is missing"
    except UserError:
        if photo.local is None:
            raise
        return None, "cannot be read"


@dataclass(frozen=True)
class ParquetRows:
    """Consecutive row groups of one file, cut into one or more parts: what one task streams."""

    file: Place
    groups: tuple[int, ...]
    first: int
    """Number of the first part."""
    counts: tuple[int, ...]
    """Photos of each part."""
    carried: tuple[str, ...]
    bytes: int

    def read(self, wanted: frozenset[int]) -> Iterator[tuple[int, pa.Table]]:
        """(part, its photos) of those wanted, in order, with one part in memory at a time.

        Raises UserError when the file is broken or the storage does not answer.
        """
        numbers = [self.first + k for k in range(len(self.counts))]
        last = max((n for n in numbers if n in wanted), default=-1)
        if last < 0:
            return
        with opened(self.file) as parquet:
            batches = parquet.iter_batches(
                STREAM_ROWS, row_groups=list(self.groups), columns=["id", "image", *self.carried]
            )
            for number, rows in zip(numbers, _cut(batches, self.counts), strict=False):
                if number in wanted:
                    yield number, as_photos(pa.Table.from_batches(rows))
                if number == last:
                    return


def _cut(batches: Iterable[pa.RecordBatch], counts: Iterable[int]) -> Iterator[list[pa.RecordBatch]]:
    """The same rows in runs of `counts`."""
    stream, rest = iter(batches), None
    for count in counts:
        run: list[pa.RecordBatch] = []
        left = count
        while left:
            batch = rest if rest is not None else next(stream)
            run.append(batch.slice(0, left))
            rest = batch.slice(left) if batch.num_rows > left else None
            left -= run[-1].num_rows
        yield run


def as_photos(rows: pa.Table) -> pa.Table:
    """Columns of `PHOTOS`, then the labels."""
    image = rows["image"]
    if pa.types.is_struct(image.type):  # Hugging Face data sets store {bytes, path}
        image = pc.struct_field(image, "bytes")
    image = image.cast(pa.large_binary())
    problem = pc.if_else(
        image.is_null(), pa.scalar("the column 'image' holds no bytes here"), pa.scalar(None, pa.string())
    )
    labels = {name: rows[name] for name in rows.column_names if name not in {"id", "image"}}
    return pa.table({"id": rows["id"].cast(pa.string()), "image": image, "problem": problem} | labels)
