"""Files and folders on any file system that Arrow knows (local, S3, GCS, Azure, HDFS), by path or URI.

Everything is tried a few times (`tries.py`), files appear whole, and no message shows a user, password or option of a
URI. Which error it is in the end, and the remedy, is said by whoever asks (`Place.failed`).
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from tsdf_ray.errors import UserError
from tsdf_ray.files import hider, is_uri, without_secrets
from tsdf_ray.store.atomic import whole_file
from tsdf_ray.tries import Failed, reason_of, tried

OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})
"""Here an object appears whole or not at all, and renaming is a copy. Elsewhere files are written, then renamed."""
_WRONG = (pa.ArrowException, ValueError, TypeError, ImportError)
"""What Arrow raises for a URI it does not understand or lacks a package for. No answer is an OSError."""
PIECE = 4 << 20
"""Bytes in memory while a file is copied here."""

T = TypeVar("T")


def open_uri(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system and the path that a URI names. Raises what Arrow raises when it knows none."""
    found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(uri)
    return found


class _NotRead(Exception):
    """Carries an error of the storage past what looks for errors of the disk here."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def _as_it_is(text: str) -> str:
    return text


@dataclass(frozen=True)
class Place:
    """A file or folder. `name` is how messages and records call it: without passwords and options.

    Every method raises what `failed` makes when the storage refuses or does not answer.
    """

    files: fs.FileSystem
    path: str
    name: str
    failed: Failed = field(repr=False, compare=False)
    hide: Callable[[str], str] = field(default=_as_it_is, repr=False, compare=False)

    @classmethod
    def of(cls, text: str, failed: Failed) -> Place:
        """The place a user named: a path, or a URI of a kind that Arrow knows.

        Raises UserError for another kind and for options that do not fit.
        """
        if not is_uri(text):
            path = str(Path(text).expanduser().resolve())
            return cls(fs.LocalFileSystem(), path, path, failed)
        name, hide = without_secrets(text), hider(text)
        try:
            # Arrow may ask the storage, where in the world a bucket is.
            files, path = tried(lambda: open_uri(text), name, "reached", failed, hide, wrong=_WRONG)
        except _WRONG as error:
            raise UserError(
                f"{name}: cannot be used ({reason_of(error, hide)}); give a path, or a URI as s3://BUCKET/FOLDER, "
                "gs://, abfs://, hdfs:// or file://"
            ) from None
        return cls(files, path.rstrip("/"), name.rstrip("/"), failed, hide)

    @property
    def local(self) -> Path | None:
        """The path on this machine's disks, if it is one."""
        return Path(self.path) if self.files.type_name == "local" else None

    @property
    def of_objects(self) -> bool:
        """Is it in an object store, where what is being written cannot be seen?"""
        return self.files.type_name in OBJECT_STORES

    def child(self, name: str) -> Place:
        """A file or folder below this one."""
        return Place(self.files, f"{self.path}/{name}", f"{self.name}/{name}", self.failed, self.hide)

    def info(self) -> fs.FileInfo:
        """Its kind (file, folder, not there), size and time of change."""
        return self.tried("read", lambda: self.files.get_file_info(self.path))

    def below(self, *, recursive: bool = True) -> list[tuple[str, fs.FileInfo]]:
        """Files below a folder as (path below it, what is known of it), sorted; none where it is missing."""
        selector = fs.FileSelector(self.path, recursive=recursive, allow_not_found=True)
        found = self.tried("listed", lambda: self.files.get_file_info(selector))
        named = [(info.path.removeprefix(self.path).lstrip("/"), info) for info in found if info.is_file]
        return sorted(named, key=lambda one: one[0])

    def read(self) -> bytes:
        """The whole file. Raises FileNotFoundError."""

        def action() -> bytes:
            with self.files.open_input_stream(self.path, compression=None) as stream:
                return bytes(stream.readall())

        return self.tried("read", action, missing=True)

    def get(self, target: Path) -> None:
        """Copy the file to a local one, whole. Raises FileNotFoundError, and NotStored when there is no room here."""

        def action() -> None:
            try:
                with whole_file(target) as temporary, temporary.open("wb") as file:
                    for piece in self._pieces():
                        file.write(piece)
            except _NotRead as failure:
                raise failure.error from None

        self.tried("read", action, missing=True)

    def _pieces(self) -> Iterator[bytes]:
        try:
            with self.files.open_input_stream(self.path, compression=None) as stream:
                while piece := stream.read(PIECE):
                    yield piece
        except (OSError, pa.ArrowException) as error:
            raise _NotRead(error) from None

    def write(self, content: bytes | pa.Buffer, tries: int | None = None) -> None:
        """The file with this content, whole or not at all."""

        def put(path: str) -> None:
            with self.files.open_output_stream(path) as stream:
                stream.write(content)

        self.tried("written", lambda: self._whole(put), tries=tries)

    def put(self, source: Path) -> None:
        """The file with the content of a local one, whole or not at all."""
        copy = fs.copy_files
        self.tried(
            "written", lambda: self._whole(lambda path: copy(str(source), path, fs.LocalFileSystem(), self.files))
        )

    def _whole(self, put: Callable[[str], None]) -> None:
        if self.of_objects:
            put(self.path)
            return
        folder, _, name = self.path.rpartition("/")
        self.files.create_dir(folder, recursive=True)
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex}.part"
        try:
            put(temporary)
            if self.local is not None:
                _flush(Path(temporary))
            self.files.move(temporary, self.path)
        except BaseException:
            with suppress(OSError, pa.ArrowException):
                self.files.delete_file(temporary)
            raise

    def delete(self) -> None:
        """Remove the file, if it is there."""

        def action() -> None:
            if self.files.get_file_info(self.path).is_file:
                with suppress(FileNotFoundError):  # another one was quicker
                    self.files.delete_file(self.path)

        self.tried("deleted", action)

    def reason(self, error: Exception) -> str:
        """The first line of what Arrow said, without the secrets of the URI."""
        return reason_of(error, self.hide)

    def tried(self, done: str, action: Callable[[], T], *, missing: bool = False, tries: int | None = None) -> T:
        """What `action` gives, after a few tries; `done` is what it does, as in `Failure`.

        With `missing`, FileNotFoundError is an answer, not a failure.
        """
        wrong = (FileNotFoundError,) if missing else ()
        try:
            return tried(action, self.name, done, self.failed, self.hide, wrong, tries)
        except wrong:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.name) from None


def under_way(name: str) -> bool:
    """Is it a file that has not got its name yet?"""
    last = PurePosixPath(name).name
    return last.startswith(".") and last.endswith(".part")


def _flush(path: Path) -> None:
    """To the disk, before the file gets its name."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
