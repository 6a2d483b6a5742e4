"""Photo collections in: what parts a source has, and how a part is read as a stream.

A part is a run of photos in the source's order, bounded in number and bytes; parts are what is computed, written and
skipped on restart. Which photos belong to which part depends on the source and the bound alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import pyarrow as pa
from pyarrow import fs

from actors.collections.places import files_below, opened, place_of
from actors.collections.readings import ParquetRows, PhotoFiles, Reading, as_photos
from tsdf_ray.errors import UserError
from tsdf_ray.faces.folder import OTHER_SUFFIXES, PHOTO_SUFFIXES, photo_files
from tsdf_ray.storage import Place

PART_BYTES = 16 << 20
"""Of encoded photos in a part: JPEGs of 12 megapixels become PNGs four times as large."""


@dataclass(frozen=True)
class Source:
    """A collection, by its parts."""

    name: str
    readings: tuple[Reading, ...]
    labels: pa.Schema
    """Columns of a Parquet source that are carried along: `split`, `identity`, attributes."""
    digest: str
    """Of names, sizes and times of change of its files, and of how it is cut."""

    @property
    def counts(self) -> dict[int, int]:
        """Photos of every part by number."""
        return {reading.first + k: count for reading in self.readings for k, count in enumerate(reading.counts)}


def open_source(text: str, part: int, reserved: frozenset[str]) -> Source:
    """List a folder of photos (with subfolders), a Parquet file, or a folder of *.parquet files.

    Of a Parquet source one footer per file is read. Columns named in `reserved` are not carried along. Raises
    UserError: nothing there, photos and Parquet mixed, files with different columns, no columns `id` and `image` or of
    kinds that cannot be used.
    """
    place = place_of(text)
    info = place.info()
    if info.type == fs.FileType.File:
        return _parquet(place, [(place, _stamp(info))], part, reserved)
    if info.type == fs.FileType.NotFound:
        raise UserError(f"{place.name}: is not there; give a folder of photos, or Parquet")
    files = files_below(place)
    tables = [(place.child(name), _stamp(info)) for name, info in files if name.endswith(".parquet")]
    photos = [(name, info) for name, info in files if _is_photo(name)]
    if place.local is not None and not tables:
        # One rule for local folders: links to folders are not followed, unreadable ones are an error.
        known = dict(photos)
        names = [path.relative_to(place.local).as_posix() for path in photo_files(place.local)]
        photos = [(name, known[name]) for name in names if name in known]
    if tables and photos:
        raise UserError(f"{place.name}: holds both photos ({photos[0][0]}) and Parquet; give a folder with one kind")
    if not tables and not photos:
        raise UserError(f"{place.name}: holds neither photos (JPEG, PNG, WebP, BMP) nor *.parquet files")
    return _parquet(place, tables, part, reserved) if tables else _folder(place, photos, part)


def _is_photo(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES | OTHER_SUFFIXES


def _stamp(info: fs.FileInfo) -> str:
    return f"{info.size}|{info.mtime_ns}"


def _folder(place: Place, photos: list[tuple[str, fs.FileInfo]], part: int) -> Source:
    readings: list[PhotoFiles] = []
    names: list[str] = []
    size = 0
    digest = hashlib.sha256(f"photos|{part}|{PART_BYTES}".encode())
    for position, (name, info) in enumerate(photos, start=1):
        digest.update(f"|{name}|{_stamp(info)}".encode())
        names.append(name)
        size += info.size
        if len(names) == part or size >= PART_BYTES or position == len(photos):
            readings.append(PhotoFiles(place, len(readings), tuple(names), size))
            names, size = [], 0
    return Source(place.name, tuple(readings), pa.schema([]), digest.hexdigest())


def _parquet(place: Place, files: list[tuple[Place, str]], part: int, reserved: frozenset[str]) -> Source:
    with ThreadPoolExecutor(8) as threads:
        footers = list(threads.map(partial(_footer, reserved=reserved), [file for file, _ in files]))
    labels = footers[0][1]
    readings: list[ParquetRows] = []
    first = 0
    digest = hashlib.sha256(f"parquet|{part}|{PART_BYTES}|{labels}".encode())
    for (file, stamp), (groups, own) in zip(files, footers, strict=True):
        if not own.equals(labels):
            raise UserError(
                f"{file.name}: has other columns than {files[0][0].name} ({own.names} against {labels.names}); a"
                " collection has the same labels everywhere"
            )
        digest.update(f"|{file.path.removeprefix(place.path)}|{stamp}".encode())
        for run, counts, size in _runs(groups, part):
            readings.append(ParquetRows(file, run, first, counts, tuple(labels.names), size))
            first += len(counts)
    if not readings:
        raise UserError(f"{place.name}: its Parquet files hold no rows")
    return Source(place.name, tuple(readings), labels, digest.hexdigest())


def _runs(groups: list[tuple[int, int]], part: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """Row groups (rows, bytes each) put together until they make a part, then cut evenly: (groups, counts, bytes)."""
    run: list[int] = []
    rows = size = 0
    for number, (group_rows, group_bytes) in enumerate(groups):
        run.append(number)
        rows, size = rows + group_rows, size + group_bytes
        most = max(1, min(part, rows * PART_BYTES // max(1, size)))
        if rows and (rows >= most or number == len(groups) - 1):
            pieces = -(-rows // most)
            yield tuple(run), tuple(rows * (k + 1) // pieces - rows * k // pieces for k in range(pieces)), size
            run, rows, size = [], 0, 0


def _footer(file: Place, reserved: frozenset[str]) -> tuple[list[tuple[int, int]], pa.Schema]:
    """(rows, bytes) of every row group, and the labels' columns."""
    with opened(file) as parquet:
        schema, metadata = parquet.schema_arrow, parquet.metadata
        for needed in ("id", "image"):
            if needed not in schema.names:
                raise UserError(
                    f"{file.name}: no column {needed!r}; it has: {', '.join(schema.names)}. Rename or add it"
                )
        try:
            as_photos(schema.empty_table().select(["id", "image"]))
        except pa.ArrowException as error:
            kinds = f"'id' is {schema.field('id').type}, 'image' is {schema.field('image').type}"
            raise UserError(
                f"{file.name}: {kinds}; ids are text or numbers, images bytes or a struct with `bytes`"
            ) from error
        groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        labels = [field.remove_metadata() for field in schema if field.name not in reserved]
        return [(group.num_rows, group.total_byte_size) for group in groups], pa.schema(labels)
