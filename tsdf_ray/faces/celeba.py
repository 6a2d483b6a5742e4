"""CelebA's own layout (Liu et al., ICCV 2015): img_align_celeba/, list_attr_celeba.txt, list_eval_partition.txt and
identity_CelebA.txt in one folder. Everything is matched by file name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from tsdf_ray.errors import UserError
from tsdf_ray.faces.decode import BadPhoto, read_bytes
from tsdf_ray.faces.labels import read_attributes, read_pairs
from tsdf_ray.faces.source import TRAINING, FaceSource, Index, Tally

PARTITIONS = {"0": TRAINING, "1": "validation", "2": "evaluation"}


class CelebaSource(FaceSource):
    """CelebA, or a part of it, in `root`. Defender and attacker share partition 0; partition 2 is for evaluation."""

    def __init__(self, root: Path, tally: Tally) -> None:
        super().__init__(tally)
        self.root = root
        self.photos = root / "img_align_celeba"

    def index(self, attributes: tuple[str, ...]) -> Index:
        """Read the three tables and list the folder; a photo counts when it stands in all of them."""
        try:
            present = {entry.name for entry in os.scandir(self.photos)}
        except OSError as error:
            raise UserError(
                f"{self.photos}: cannot be listed ({error.strerror}); set faces.path to CelebA's folder"
            ) from error
        labels = read_attributes(self.root / "list_attr_celeba.txt", attributes, self.tally)
        partition = read_pairs(self.root / "list_eval_partition.txt", "a partition (0, 1 or 2)", self.tally)
        identity = read_pairs(self.root / "identity_CelebA.txt", "an identity number", self.tally)
        ids: list[str] = []
        for name in sorted(present | labels.keys()):
            try:
                self._check(name, present, labels, partition, identity)
            except BadPhoto as error:
                self.tally.bad(error)
            else:
                ids.append(name)
        labels_NA = np.array([labels[key] for key in ids], dtype=np.uint8).reshape(len(ids), len(attributes))
        splits = tuple(PARTITIONS[partition[key]] for key in ids)
        return Index(tuple(ids), labels_NA, attributes, splits, tuple(identity[key] for key in ids))

    def read(self, ids: Collection[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """One file per photo."""
        for key in ids:
            yield key, partial(read_bytes, self.photos / key)

    @staticmethod
    def _check(
        name: str,
        present: Collection[str],
        labels: Collection[str],
        partition: dict[str, str],
        identity: Collection[str],
    ) -> None:
        tables = (
            ("img_align_celeba", present),
            ("list_attr_celeba.txt", labels),
            ("list_eval_partition.txt", partition),
            ("identity_CelebA.txt", identity),
        )
        for table, known in tables:
            if name not in known:
                raise BadPhoto(name, f"is not in {table}", "add it there, remove it, or set faces.on_bad: skip")
        if partition[name] not in PARTITIONS:
            raise BadPhoto(name, f"partition {partition[name]} in list_eval_partition.txt, expected 0, 1 or 2")
