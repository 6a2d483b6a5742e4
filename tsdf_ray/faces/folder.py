"""A folder of photos, with subfolders; labels from a labels.csv or list_attr_celeba.txt in it, if there is one."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from tsdf_ray.errors import UserError
from tsdf_ray.faces.decode import BadPhoto, read_bytes
from tsdf_ray.faces.labels import CsvRow, read_attributes, read_csv
from tsdf_ray.faces.source import FaceSource, Index, Tally, unknown_attribute

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
# Pictures in formats we do not read: named as bad photos, not passed over in silence.
OTHER_SUFFIXES = frozenset({".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl"})


def photo_files(folder: Path) -> list[Path]:
    """All pictures under `folder`, sorted, by suffix (upper or lower case); hidden files and folders are left out.

    Links to folders are not followed. Raises UserError when the folder cannot be listed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: is not a folder; give the folder that holds the photos")

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions") from error

    found: list[Path] = []
    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(root) / name for name in files if not name.startswith(".")]
        found += [path for path in paths if path.suffix.lower() in PHOTO_SUFFIXES | OTHER_SUFFIXES]
    return sorted(found)


class FolderSource(FaceSource):
    """Photos of a folder; an id is the path below it, with forward slashes."""

    def __init__(self, root: Path, tally: Tally) -> None:
        super().__init__(tally)
        self.root = root

    def index(self, attributes: tuple[str, ...]) -> Index:
        """List the folder and read its label file. Photos without a row, and rows without a photo, are bad items."""
        files = {path.relative_to(self.root).as_posix() for path in photo_files(self.root)}
        if not files:
            raise UserError(
                f"{self.root}: holds no photo (JPEG, PNG, WebP, BMP); set faces.path to a folder with photos"
            )
        rows = self._labels(attributes)
        if rows is None:
            if attributes:
                raise unknown_attribute(f"{self.root} (no labels.csv)", attributes[0], ())
            rows = {key: CsvRow((), None, None) for key in files}
        ids: list[str] = []
        for key in sorted(files | rows.keys()):
            if key in files and key in rows:
                ids.append(key)
            elif key in files:
                self.tally.bad(BadPhoto(key, "has no row in the label file"))
            else:
                self.tally.bad(BadPhoto(key, f"has labels, but is not in {self.root}"))
        labels_NA = np.array([rows[key].labels for key in ids], dtype=np.uint8).reshape(len(ids), len(attributes))
        return Index(
            tuple(ids),
            labels_NA,
            attributes,
            tuple(rows[key].split for key in ids),
            tuple(rows[key].identity for key in ids),
        )

    def read(self, ids: Collection[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """One file per photo."""
        for key in ids:
            yield key, partial(read_bytes, self.root / key)

    def _labels(self, attributes: tuple[str, ...]) -> dict[str, CsvRow] | None:
        table, celeba = self.root / "labels.csv", self.root / "list_attr_celeba.txt"
        if table.exists() and celeba.exists():
            raise UserError(f"{self.root}: both labels.csv and list_attr_celeba.txt are there; remove one")
        if table.exists():
            return read_csv(table, attributes, self.tally)
        if celeba.exists():
            found = read_attributes(celeba, attributes, self.tally)
            return {key: CsvRow(labels, None, None) for key, labels in found.items()}
        return None
