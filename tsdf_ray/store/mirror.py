"""Where the copy of a run lies: a folder of any file system Arrow knows (S3, GCS, Azure, HDFS, a mounted one), by URI.

Files go there and back whole, each with a few tries (`tsdf_ray/storage.py`). What of a run is copied when: `copy.py`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tsdf_ray.errors import NotStored, UserError
from tsdf_ray.storage import Place, under_way
from tsdf_ray.tries import Failure


class Mirror:
    """Files under a URI."""

    def __init__(self, uri: str) -> None:
        """Raises UserError for a URI that Arrow cannot use, NotStored when the storage does not answer."""
        place = Place.of(uri, lambda failure: NotStored(f"{_what(failure)}; check the URI, or try again later"))
        if not place.path.strip("/"):
            raise UserError(f"{place.name}: names no folder; give one, as s3://BUCKET/FOLDER")
        self._place = replace(place, failed=self._failed)
        self._options = uri.partition("?")[2].rstrip("/")

    def __str__(self) -> str:
        """The URI without its secrets."""
        return self._place.name

    def _failed(self, failure: Failure) -> NotStored:
        return NotStored(
            f"{_what(failure)}; when that works again, `tsdf-ray resume {self}` on this machine goes on from "
            f"{self.cache}"
        )

    @property
    def cache(self) -> Path:
        """The folder of this machine where a run with this URI is played."""
        return self.folder("runs")

    def folder(self, kind: str) -> Path:
        """A folder of this machine for this URI, under $TSDF_RAY_CACHE/KIND (else ~/.cache/tsdf-ray/KIND)."""
        home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        root = Path(os.environ.get("TSDF_RAY_CACHE") or Path(home) / "tsdf-ray")
        base = self._place.path
        key = f"{self._place.files.type_name}:{base}:{self._options}"
        return root / kind / f"{PurePosixPath(base).name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def put(self, source: Path, name: str) -> None:
        """Copy a local file there, whole. Raises NotStored when it cannot be done."""
        self._place.child(name).put(source)

    def write(self, name: str, data: bytes, tries: int | None = None) -> None:
        """A small file, whole. Raises NotStored when it cannot be done."""
        self._place.child(name).write(data, tries)

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none. Raises NotStored when the storage does not answer."""
        try:
            return self._place.child(name).read()
        except FileNotFoundError:
            return None

    def get(self, name: str, target: Path) -> bool:
        """Copy a file to `target`, whole; False where there is none. Raises NotStored when it cannot be done."""
        try:
            self._place.child(name).get(target)
        except FileNotFoundError:
            return False
        return True

    def delete(self, name: str) -> None:
        """Remove a file, if it is there. Raises NotStored when it cannot be done."""
        self._place.child(name).delete()

    def sweep(self) -> None:
        """Remove what a killed process left half-written. Only for the one who writes here."""
        for name in () if self._place.of_objects else self.names():
            if under_way(name) and not name.startswith(".lock."):  # our own lease may be on its way
                self.delete(name)

    def names(self, folder: str = "") -> list[str]:
        """Files under a folder, as paths in the mirror, sorted; none where it is missing."""
        below = (self._place.child(folder) if folder else self._place).below()
        return [f"{folder}/{name}".lstrip("/") for name, _ in below]


def _what(failure: Failure) -> str:
    times = f", {failure.tries} times" if failure.tries > 1 else ""
    return f"{failure.name}: cannot be {failure.done} ({failure.reason}){times}"
