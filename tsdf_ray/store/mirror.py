"""Where the copy of a run lies: a folder of any file system Arrow knows (S3, GCS, Azure, HDFS, a mounted one), by URI.

Files go there and back whole, each with a few tries. What of a run is copied when: `copy.py`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from tsdf_ray.errors import NotStored, UserError
from tsdf_ray.files import without_secrets
from tsdf_ray.store.atomic import whole_file

TRIES = 5
PAUSE = 1.0
"""Seconds before the second try; doubled before each further one."""
_FOLDERS = ("local", "hdfs", "mock")
"""File systems with real folders, where a file under way can be seen: it gets its name when it is whole. In a bucket
an object appears when it is whole."""

T = TypeVar("T")
Place = str | Path


def open_uri(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system and the path that a URI names. Raises what Arrow raises when it knows none."""
    found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(uri)
    return found


class Mirror:
    """Files under a URI."""

    def __init__(self, uri: str) -> None:
        """Raises UserError for a URI that Arrow cannot use."""
        self.uri = uri.rstrip("/")
        try:
            self._fs, base = open_uri(self.uri)
        except (pa.ArrowException, OSError, ValueError) as error:
            # Arrow repeats the URI, secrets and all.
            reason = str(error).replace(self.uri, str(self)).splitlines()[0]
            raise UserError(
                f"{self}: cannot be used ({reason}); give a folder, or a URI as s3://BUCKET/FOLDER, gs://, abfs://, "
                "hdfs:// or file://"
            ) from error
        if not base.strip("/"):
            raise UserError(f"{self}: names no folder; give one, as s3://BUCKET/FOLDER")
        self._base = base.rstrip("/")
        self._folders = self._fs.type_name in _FOLDERS

    def __str__(self) -> str:
        """The URI without its secrets."""
        return without_secrets(self.uri)

    @property
    def cache(self) -> Path:
        """The folder of this machine where a run with this URI is played."""
        return self.folder("runs")

    def folder(self, kind: str) -> Path:
        """A folder of this machine for this URI, under $TSDF_RAY_CACHE/KIND (else ~/.cache/tsdf-ray/KIND)."""
        home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        root = Path(os.environ.get("TSDF_RAY_CACHE") or Path(home) / "tsdf-ray")
        key = f"{self._fs.type_name}:{self._base}:{self.uri.partition('?')[2]}"
        return root / kind / f"{PurePosixPath(self._base).name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def put(self, source: Path, name: str) -> None:
        """Copy a local file there, whole. Raises NotStored when it cannot be done."""
        self._whole(name, lambda path: fs.copy_files(str(source), path, fs.LocalFileSystem(), self._fs))

    def write(self, name: str, data: bytes) -> None:
        """A small file, whole. Raises NotStored when it cannot be done."""

        def put(path: str) -> None:
            with self._fs.open_output_stream(path) as stream:
                stream.write(data)

        self._whole(name, put)

    def _whole(self, name: str, put: Callable[[str], None]) -> None:
        path = f"{self._base}/{name}"

        def action() -> None:
            if not self._folders:
                put(path)
                return
            folder, _, last = path.rpartition("/")
            self._fs.create_dir(folder, recursive=True)
            temporary = f"{folder}/.{last}.{os.getpid()}.part"
            try:
                put(temporary)
                self._fs.move(temporary, path)
            except BaseException:
                self._remove(temporary)
                raise

        self._tried(name, "written", action)

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none. Raises NotStored when the storage does not answer."""

        def action() -> bytes:
            with self._fs.open_input_stream(f"{self._base}/{name}", compression=None) as stream:
                return bytes(stream.readall())

        try:
            return self._tried(name, "read", action)
        except FileNotFoundError:
            return None

    def get(self, name: str, target: Path) -> bool:
        """Copy a file to `target`, whole; False where there is none. Raises NotStored when it cannot be done."""

        def action() -> None:
            with whole_file(target) as temporary:
                fs.copy_files(f"{self._base}/{name}", str(temporary), self._fs, fs.LocalFileSystem())

        try:
            self._tried(name, "read", action)
        except FileNotFoundError:
            return False
        return True

    def delete(self, name: str) -> None:
        """Remove a file, if it is there. Raises NotStored when it cannot be done."""
        self._tried(name, "deleted", lambda: self._remove(f"{self._base}/{name}"))

    def _remove(self, path: str) -> None:
        if self._fs.get_file_info(path).type == fs.FileType.File:
            self._fs.delete_file(path)

    def names(self, folder: str = "") -> list[str]:
        """Files under a folder, as paths in the mirror, sorted; none where it is missing."""
        selector = fs.FileSelector(f"{self._base}/{folder}".rstrip("/"), allow_not_found=True, recursive=True)
        found = self._tried(folder, "listed", lambda: self._fs.get_file_info(selector))
        cut = len(self._base) + 1
        return sorted(info.path[cut:] for info in found if info.type == fs.FileType.File)

    def _tried(self, name: str, done: str, action: Callable[[], T]) -> T:
        """What `action` gives, after a few tries. FileNotFoundError is an answer, not a failure."""
        for attempt in range(TRIES):
            try:
                return action()
            except FileNotFoundError:
                raise
            except (OSError, pa.ArrowException) as error:
                if attempt == TRIES - 1:
                    reason = (str(error).splitlines() or [type(error).__name__])[0]
                    raise NotStored(
                        f"{self}/{name}: cannot be {done} ({reason}), {TRIES} times; when that works again, "
                        f"`tsdf-ray resume {self}` on this machine goes on from {self.cache}"
                    ) from error
                time.sleep(PAUSE * 2**attempt)
        raise AssertionError("the last try returns or raises")
