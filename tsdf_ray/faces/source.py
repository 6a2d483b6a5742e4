"""The `FaceSource` contract: labels first, pixels after, one photo at a time.

A source is asked for its index (ids, labels, splits, identities: no pixel is decoded), and then for the bytes of the
photos that were chosen. So a data set of 200,000 photos starts as fast as its label files are read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from tsdf_ray.errors import UserError
from tsdf_ray.faces.decode import BadPhoto, Pixels, decode, to_square

OnBad = Literal["stop", "skip"]

SPLITS = ("defender", "attacker", "evaluation")
"""The splits of a run, and the values a `split` column may have."""

TRAINING = "training"
"""Split of photos that are still to be divided between defender and attacker (CelebA's partition 0)."""


@dataclass(frozen=True)
class Face:
    """One photo with what is known about it; pixels are uint8 [3, S, S]."""

    id: str
    pixels: Pixels
    labels: Mapping[str, int]
    split: str | None
    identity: str | None


@dataclass(frozen=True)
class Index:
    """What a source knows about its N photos without decoding any: labels_NA is uint8 of 0 and 1."""

    ids: tuple[str, ...]
    labels_NA: npt.NDArray[np.uint8]
    attributes: tuple[str, ...]
    splits: tuple[str | None, ...]
    identities: tuple[str | None, ...]


@dataclass
class Tally:
    """What to do about a bad item (`on_bad`), and the items left out so far, each as 'name: reason'."""

    on_bad: OnBad = "stop"
    skipped: list[str] = field(default_factory=list)

    def bad(self, error: BadPhoto) -> None:
        """Raise `error` under `stop`; list it under `skip`."""
        if self.on_bad == "stop":
            raise error
        self.skipped.append(error.item)


class FaceSource(ABC):
    """Photos and labels in one layout."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    @abstractmethod
    def index(self, attributes: tuple[str, ...]) -> Index:
        """Ids, labels of `attributes`, splits and identities. Raises UserError naming file, line and remedy."""

    @abstractmethod
    def read(self, ids: Collection[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """(id, how to get its bytes) of these photos, after `index`, in the order that reads fastest.

        The call may raise BadPhoto. Only one photo's bytes (or one batch of a Parquet file) are held at a time.
        """

    def pixels(self, ids: Collection[str], size: int, crop: int | None) -> Iterator[tuple[str, Pixels]]:
        """(id, uint8 [3, size, size]) of these photos; bad ones raise or are left out and listed."""
        for key, get in self.read(ids):
            try:
                square = to_square(decode(get(), key), size, crop, key)
            except BadPhoto as error:
                self.tally.bad(error)
                continue
            yield key, square

    def faces(self, attributes: tuple[str, ...], size: int, crop: int | None) -> Iterator[Face]:
        """Every photo, streamed."""
        index = self.index(attributes)
        row = {key: n for n, key in enumerate(index.ids)}
        for key, pixels in self.pixels(index.ids, size, crop):
            n = row[key]
            labels = {name: int(index.labels_NA[n, a]) for a, name in enumerate(attributes)}
            yield Face(key, pixels, labels, index.splits[n], index.identities[n])


def unknown_attribute(where: str, name: str, valid: Collection[str]) -> UserError:
    """The error for an attribute that a data set does not label."""
    listed = ", ".join(valid) if valid else "none"
    return UserError(f"{where}: unknown attribute {name!r}; labelled there: {listed}. Change faces.attributes")
