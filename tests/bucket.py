"""An object store that lives in a folder, for tests: flat names, objects that appear whole, and calls that fail."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

_NUMBERS = itertools.count()


class _Object(io.BytesIO):
    """What is written is there, whole, once it is closed."""

    def __init__(self, target: Path, away: Path) -> None:
        super().__init__()
        self._target = target
        self._away = away

    def close(self) -> None:
        if not self.closed:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._away / f"{next(_NUMBERS)}"
            temporary.write_bytes(self.getvalue())
            temporary.replace(self._target)
        super().close()


class Bucket(fs.FileSystemHandler):
    """Objects under `root`. `failing[NAME]` calls about an object whose path ends with NAME raise OSError."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.failing: dict[str, int] = {}
        self.calls: list[tuple[str, str]] = []
        self._fs = fs.LocalFileSystem()
        self._away = root.with_name(f"{root.name}-under-way")
        self._away.mkdir()

    def _path(self, call: str, path: str) -> str:
        self.calls.append((call, path))
        for name, left in self.failing.items():
            if path.endswith(name) and left:
                self.failing[name] = left - 1
                raise OSError("AWS Error NETWORK_CONNECTION: curlCode 28, timeout was reached")
        return str(self.root / path)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def get_type_name(self) -> str:
        return "bucket"

    def normalize_path(self, path: str) -> str:
        return path

    def _told(self, info: fs.FileInfo) -> fs.FileInfo:
        path = str(Path(info.path).relative_to(self.root))
        return fs.FileInfo(path, type=info.type, size=info.size, mtime_ns=info.mtime_ns)

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [self._told(self._fs.get_file_info(self._path("info", path))) for path in paths]

    def get_file_info_selector(self, selector: Any) -> list[fs.FileInfo]:
        base = self._path("list", selector.base_dir)
        found = self._fs.get_file_info(fs.FileSelector(base, selector.allow_not_found, selector.recursive))
        return [self._told(info) for info in found]

    def create_dir(self, path: str, recursive: bool) -> None:
        raise NotImplementedError("a bucket has no folders")

    def delete_dir(self, path: str) -> None:
        raise NotImplementedError

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        raise NotImplementedError

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError

    def delete_file(self, path: str) -> None:
        self._fs.delete_file(self._path("delete", path))

    def move(self, src: str, dest: str) -> None:
        raise NotImplementedError("a bucket cannot rename")

    def copy_file(self, src: str, dest: str) -> None:
        raise NotImplementedError

    def open_input_stream(self, path: str) -> Any:
        return self._fs.open_input_stream(self._path("read", path), compression=None)

    def open_input_file(self, path: str) -> Any:
        return self._fs.open_input_file(self._path("read", path))

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        return pa.PythonFile(_Object(Path(self._path("write", path)), self._away), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        raise NotImplementedError("an object cannot be appended to")
