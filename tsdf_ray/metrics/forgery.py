"""Edit success by an independent judge, and how well an unprotected generator leaves alone what it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from tsdf_ray.faces.faceset import HAIR


class Judge(Protocol):
    """What the evaluator needs of a judge; no player may load one."""

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Float32 [B, D] of photos [B, 3, H, W] in [-1, 1]."""
        ...

    def knows(self, attribute_P: torch.Tensor) -> torch.Tensor:
        """bool [P]: can it judge edits of these attributes?"""
        ...

    def verdict(self, features_PD: torch.Tensor, attribute_P: torch.Tensor, target_PA: torch.Tensor) -> torch.Tensor:
        """bool [P]: does the forgery of features p carry attribute attribute_P[p] as target_PA[p] asks?"""
        ...


class Embedder(Protocol):
    """A network from photos to vectors, with a name for its metrics."""

    @property
    def name(self) -> str: ...
    def embed(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Float32 [B, D] of photos [B, 3, H, W] in [-1, 1]."""
        ...


class Perceptual(Protocol):
    """A distance of photos as people see it (LPIPS)."""

    def distance(self, a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
        """Float64 [B] of photos [B, 3, H, W] in [-1, 1]."""
        ...


def similarity(a_PD: torch.Tensor, b_PD: torch.Tensor) -> torch.Tensor:
    """float64 [P]: cosine between the embeddings of two faces, 1 for the same direction; 0 where one is zero."""
    return torch.nn.functional.cosine_similarity(a_PD.double(), b_PD.double(), dim=1)


def hair_edits(edits: Sequence[str]) -> npt.NDArray[np.intp]:
    """Positions of the pairs that ask for a hair colour."""
    return np.flatnonzero([name in HAIR for name in edits]).astype(np.intp)


def identity_error(x_BCHW: torch.Tensor, edited_BCHW: torch.Tensor) -> torch.Tensor:
    """float64 [B]: mean |G(x, own labels) - x| over pixels and channels, on the [-1, 1] scale."""
    return (edited_BCHW.float() - x_BCHW).abs().mean((1, 2, 3), dtype=torch.float64)
