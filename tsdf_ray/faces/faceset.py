"""A set of labelled face photos in memory, on the 8-bit grid, and what can be asked of it.

Legend of the shape suffixes used in the whole project: B photos, C = 3 RGB channels, H x W pixels, A attributes,
N anchors or boxes, 4 box corners (x1, y1, x2, y2 in pixels). Images are float32 in [-1, 1] unless named `pixels`
(uint8, 0..255). Perturbations are on the [-1, 1] scale: epsilon 0.05 is 6.375/255.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from tsdf_ray.errors import UserError

HAIR = ("Black_Hair", "Blond_Hair", "Brown_Hair")
"""Hair colours: mutually exclusive, a photo carries exactly one of those its data set has."""


@dataclass(frozen=True)
class FaceSet:
    """Photos of one split.

    pixels_BCHW: uint8 [B, 3, S, S]; labels_BA: uint8 [B, A] of 0 and 1; attributes: the A names; ids: B unique names.
    """

    pixels_BCHW: npt.NDArray[np.uint8]
    labels_BA: npt.NDArray[np.uint8]
    attributes: tuple[str, ...]
    ids: tuple[str, ...]
    skipped: tuple[str, ...] = field(default=(), compare=False)
    """Items left out under `on_bad: skip`, each as 'name: reason'."""

    def __post_init__(self) -> None:
        n = len(self.ids)
        assert self.pixels_BCHW.dtype == np.uint8
        assert self.pixels_BCHW.ndim == 4
        assert self.pixels_BCHW.shape[1] == 3
        assert self.pixels_BCHW.shape[0] == n
        assert self.labels_BA.shape == (n, len(self.attributes))
        assert len(set(self.ids)) == n, "photo ids must be unique"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Side of the square photos in pixels."""
        return int(self.pixels_BCHW.shape[-1])

    def images(self) -> torch.Tensor:
        """Float32 [B, 3, S, S] in [-1, 1]; a fresh tensor (arrays out of an object store are read-only)."""
        return to_images(torch.from_numpy(self.pixels_BCHW.copy()))

    def labels(self) -> torch.Tensor:
        """Float32 [B, A] of 0 and 1; a fresh tensor."""
        return torch.from_numpy(self.labels_BA.astype(np.float32))

    def take(self, index: Sequence[int] | npt.NDArray[np.intp]) -> FaceSet:
        """The photos at `index`, in that order."""
        chosen = np.asarray(index, dtype=np.intp)
        ids = tuple(self.ids[i] for i in chosen)
        return FaceSet(self.pixels_BCHW[chosen], self.labels_BA[chosen], self.attributes, ids)

    def select(self, attributes: tuple[str, ...]) -> FaceSet:
        """The same photos with these labels alone, in this order. Raises UserError for a label they do not carry."""
        if attributes == self.attributes:
            return self
        missing = [name for name in attributes if name not in self.attributes]
        if missing:
            raise UserError(f"the photos carry no label {', '.join(missing)}, only {', '.join(self.attributes)}")
        columns = [self.attributes.index(name) for name in attributes]
        return FaceSet(self.pixels_BCHW, self.labels_BA[:, columns], attributes, self.ids)

    def with_pixels(self, pixels_BCHW: npt.NDArray[np.uint8]) -> FaceSet:
        """The same people and labels with other pixels (published, cropped or purified photos)."""
        return FaceSet(pixels_BCHW, self.labels_BA, self.attributes, self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of pixels, labels, attribute names and ids; the key of every cache about these photos."""
        h = hashlib.sha256()
        h.update(repr((self.pixels_BCHW.shape, self.attributes, self.ids)).encode())
        h.update(np.ascontiguousarray(self.pixels_BCHW).tobytes())
        h.update(np.ascontiguousarray(self.labels_BA).tobytes())
        return h.hexdigest()


def to_images(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float32 [-1, 1]; exact on the 8-bit grid."""
    return pixels.to(torch.float32) / 127.5 - 1.0


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """Float [-1, 1] -> uint8 by rounding to the nearest step of the 8-bit grid; values outside are clamped."""
    return ((images.detach().float().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
