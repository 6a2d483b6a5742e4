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

    def succeeds(self, x_PCHW: torch.Tensor, attribute_P: torch.Tensor, target_PA: torch.Tensor) -> torch.Tensor:
        """bool [P]: does forgery p (in [-1, 1]) carry attribute attribute_P[p] as target_PA[p] asks?"""
        ...


def hair_edits(edits: Sequence[str]) -> npt.NDArray[np.intp]:
    """Positions of the pairs that ask for a hair colour."""
    return np.flatnonzero([name in HAIR for name in edits]).astype(np.intp)


def identity_error(x_BCHW: torch.Tensor, edited_BCHW: torch.Tensor) -> torch.Tensor:
    """float64 [B]: mean |G(x, own labels) - x| over pixels and channels, on the [-1, 1] scale."""
    return (edited_BCHW.float() - x_BCHW).abs().mean((1, 2, 3), dtype=torch.float64)
