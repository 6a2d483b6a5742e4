"""Where collections lie: what is said when the storage fails, which files belong to one, and Parquet read in pieces."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from tsdf_ray.errors import UserError
from tsdf_ray.storage import Place
from tsdf_ray.tries import Failure

STREAM_BYTES = 1 << 20
"""Parquet is read by so much at a time, never by row group: some writers put a whole data set into one."""


def place_of(text: str) -> Place:
    """The place a user named, by path or URI. Raises UserError, also later when the storage does not answer."""
    return Place.of(text, _no_answer)


def _no_answer(failure: Failure) -> UserError:
    times = f", {failure.tries} times" if failure.tries > 1 else ""
    return UserError(
        f"{failure.name}: the storage refused or did not answer ({failure.reason}){times}; check the place, its"
        " permissions and the credentials, then start again: finished parts are kept"
    )


def files_below(place: Place, *, recursive: bool = True) -> list[tuple[str, fs.FileInfo]]:
    """Files below a folder as (path below it, what is known of it), sorted. Hidden ones are left out."""
    return [(name, info) for name, info in place.below(recursive=recursive) if not _hidden(name)]


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in PurePosixPath(name).parts)


@contextmanager
def opened(file: Place) -> Iterator[pq.ParquetFile]:
    """A Parquet file, read by small pieces. Raises UserError when it is broken or cannot be reached."""
    try:
        with (
            Reader(file) as reader,
            pq.ParquetFile(reader, buffer_size=STREAM_BYTES, pre_buffer=False) as parquet,
        ):
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file.name}: not a readable Parquet file ({file.reason(error)}); replace it") from None


class Reader(io.RawIOBase):
    """A file of any storage: every read is tried as all else is."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place
        self._file: pa.NativeFile | None = None
        self._at = 0
        self.size: int = place.tried("read", lambda: self._opened().size(), missing=True)

    def _opened(self) -> pa.NativeFile:
        if self._file is None:
            self._file = self._place.files.open_input_file(self._place.path)
        return self._file

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Where the next read is to begin."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer at the end. Raises what the place's `failed` makes."""
        left = max(0, self.size - self._at)
        wanted = left if size < 0 else min(size, left)

        def action() -> bytes:
            try:
                return bytes(self._opened().read_at(wanted, self._at))
            except BaseException:
                self._file = None  # a connection that broke does not come back
                raise

        content = self._place.tried("read", action) if wanted else b""
        self._at += len(content)
        return content

    def close(self) -> None:
        """Twice does no harm."""
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()
