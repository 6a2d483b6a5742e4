"""What a job over a collection writes: parts with fixed names, and what they were made with."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from actors.collections.places import files_below, opened, place_of
from tsdf_ray.errors import UserError
from tsdf_ray.storage import Place, under_way

RECORD = "_collection.json"
BESIDE = b"tsdf-ray beside"
"""Key of a table's metadata: bytes that are written beside the part, not into it."""
STALE_SECONDS = 3600


class Collection:
    """A folder of part-NNNNNN.parquet files; a part that has its name is finished."""

    def __init__(self, text: str) -> None:
        self.place = place_of(text)

    def claim(self, settings: dict[str, Any]) -> None:
        """Begin with these settings, or go on with the same.

        Raises UserError: a folder with other content, or made with other settings (all that differ are named).
        """
        if self.place.info().type == fs.FileType.File:
            raise UserError(f"{self.place.name}: is a file; give a folder")
        record = self.place.child(RECORD)
        try:
            before = json.loads(record.read())
        except FileNotFoundError:
            if files_below(self.place, recursive=False):
                raise UserError(
                    f"{self.place.name}: holds files and no {RECORD}; give a new folder, or one that a call began"
                ) from None
            record.write((json.dumps(settings, indent=1) + "\n").encode())
            return
        except ValueError as error:
            raise UserError(f"{record.name}: is damaged ({error}); give another folder") from error
        if before.get("job") != settings["job"]:
            raise UserError(f"{self.place.name}: holds what {before.get('job')!r} wrote; give another folder")
        differing = [key for key in sorted({*before, *settings}) if before.get(key) != settings.get(key)]
        if differing:
            listed = "; ".join(
                f"{key}: {_short(before.get(key))} then, {_short(settings.get(key))} now" for key in differing
            )
            raise UserError(f"{self.place.name}: was begun with other settings ({listed}); give another folder")
        self._sweep()

    def settings(self) -> dict[str, Any]:
        """What it was begun with. Raises UserError when no job has written here."""
        try:
            found: dict[str, Any] = json.loads(self.place.child(RECORD).read())
        except (FileNotFoundError, ValueError) as error:
            raise UserError(
                f"{self.place.name}: holds no readable {RECORD}; give what `tsdf-ray protect --format parquet` wrote"
            ) from error
        return found

    def part(self, number: int) -> Place:
        """Where a part is, once it is finished."""
        return self.place.child(f"part-{number:06d}.parquet")

    def beside(self, number: int) -> Place:
        """Where what belongs to a part, and is no rows of it, is kept; whoever reads a folder of Parquet skips it."""
        return self.place.child(f"_part-{number:06d}.safetensors")

    def finished(self) -> frozenset[int]:
        """Numbers of the parts that are there."""
        names = [name for name, _ in files_below(self.place, recursive=False)]
        digits = [name.removeprefix("part-").removesuffix(".parquet") for name in names if name.startswith("part-")]
        return frozenset(int(text) for text in digits if text.isdigit())

    def write(self, number: int, rows: pa.Table) -> None:
        """A finished part, and before it what is written beside it: a part that has its name is whole.

        Photos stay as they are, compressed already; all else by zstd.
        """
        known: dict[bytes, bytes] = dict(rows.schema.metadata or {})
        if (beside := known.pop(BESIDE, None)) is not None:
            self.beside(number).write(beside)
            rows = rows.replace_schema_metadata(known or None)
        sink = pa.BufferOutputStream()
        photos = {
            name: "NONE" if pa.types.is_large_binary(rows.schema.field(name).type) else "ZSTD"
            for name in rows.column_names
        }
        others = [name for name, codec in photos.items() if codec != "NONE"]
        pq.write_table(rows, sink, compression=photos, use_dictionary=others, write_statistics=others)
        self.part(number).write(sink.getvalue())

    def read(self, columns: list[str]) -> Iterator[pa.Table]:
        """Some columns of every part, in order, a few parts in memory at a time. Raises UserError for a broken part."""

        def one(number: int) -> pa.Table:
            place = self.part(number)
            with opened(place) as parquet:
                return parquet.read(columns=columns)

        numbers = sorted(self.finished())
        with ThreadPoolExecutor(4) as threads:
            for first in range(0, len(numbers), 16):
                yield from threads.map(one, numbers[first : first + 16])

    def columns(self) -> list[str]:
        """Of its parts, as the first has them; none when there is no part."""
        for number in sorted(self.finished())[:1]:
            with opened(self.part(number)) as parquet:
                return list(parquet.schema_arrow.names)
        return []

    def _sweep(self) -> None:
        """Remove what a killed process left half-written, an hour ago or more: another may be writing now."""
        if not self.place.of_objects:
            for name, info in self.place.below(recursive=False):
                if under_way(name) and time.time() - info.mtime.timestamp() > STALE_SECONDS:
                    self.place.child(name).delete()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
