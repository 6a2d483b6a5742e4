"""Folders on local disk or object storage, by path or URI: listing, reading, and files that appear whole."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyarrow import fs

from tsdf_ray.errors import UserError
from tsdf_ray.files import is_uri, without_secrets

OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})
"""Here an object appears whole or not at all, and renaming is a copy. Elsewhere files are written, then renamed."""


@dataclass(frozen=True)
class Place:
    """A file or folder. `name` is how messages and records call it: without passwords and options."""

    files: fs.FileSystem
    path: str
    name: str

    @classmethod
    def of(cls, text: str) -> Place:
        """The place a user named: a path, or a URI of a kind that pyarrow knows (file, s3, gs, abfs, hdfs).

        Raises UserError for another kind and for options that do not fit.
        """
        if not is_uri(text):
            path = str(Path(text).expanduser().resolve())
            return cls(fs.LocalFileSystem(), path, path)
        name = without_secrets(text)
        try:
            with _reached(name):
                files, path = fs.FileSystem.from_uri(text)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise UserError(
                f"{name}: not a place that can be used ({str(error).replace(text, name)}); give a path, or s3://, gs://,"
                " abfs://, hdfs:// or file://"
            ) from error
        return cls(files, path.rstrip("/"), name.rstrip("/"))

    @property
    def local(self) -> Path | None:
        """The path on this machine's disks, if it is one."""
        return Path(self.path) if self.files.type_name == "local" else None

    def child(self, name: str) -> Place:
        """A file or folder below this one."""
        return Place(self.files, f"{self.path}/{name}", f"{self.name}/{name}")

    def kind(self) -> fs.FileType:
        """File, folder, or not there. Raises UserError when the storage does not answer."""
        with _reached(self.name):
            return self.files.get_file_info(self.path).type

    def below(self, *, recursive: bool = True) -> list[tuple[str, fs.FileInfo]]:
        """Files below a folder as (path below it, what is known of it), sorted. Hidden ones are left out."""
        with _reached(self.name):
            found = self.files.get_file_info(fs.FileSelector(self.path, recursive=recursive, allow_not_found=True))
        named = [(info.path.removeprefix(self.path).lstrip("/"), info) for info in found if info.is_file]
        return sorted((name, info) for name, info in named if not _hidden(name))

    def read(self) -> bytes:
        """The whole file. Raises FileNotFoundError, and UserError when the storage does not answer."""
        with _reached(self.name), self.files.open_input_stream(self.path, compression=None) as stream:
            content: bytes = stream.read()
            return content

    def write(self, content: bytes | pa.Buffer) -> None:
        """The file with this content, whole or not at all. Raises UserError when it cannot be written."""
        with _reached(self.name):
            if self.files.type_name in OBJECT_STORES:
                with self.files.open_output_stream(self.path) as stream:
                    stream.write(content)
                return
            folder, _, name = self.path.rpartition("/")
            self.files.create_dir(folder, recursive=True)
            temporary = f"{folder}/.{name}.{uuid.uuid4().hex}.part"
            try:
                with self.files.open_output_stream(temporary) as stream:
                    stream.write(content)
                if self.local is not None:
                    _flush(Path(temporary))
                self.files.move(temporary, self.path)
            except BaseException:
                if self.files.get_file_info(temporary).is_file:
                    self.files.delete_file(temporary)
                raise


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in PurePosixPath(name).parts)


def _flush(path: Path) -> None:
    """To the disk, before the file gets its name."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def _reached(name: str) -> Iterator[None]:
    """What storage says when it cannot do what it was asked, as one message."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{name}: the storage refused or did not answer ({reason}); check the place, its permissions and the"
            " credentials, then start again: finished parts are kept"
        ) from error
