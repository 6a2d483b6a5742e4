"""What networks see in forgeries: the judge, the features of set distances, identity. Clean forgeries are seen once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from tsdf_ray.metrics.forgery import Embedder, Judge, similarity
from tsdf_ray.metrics.published import remember
from tsdf_ray.metrics.sets import SetPairs

Vectors = npt.NDArray[np.float32]
"""What a network sees: one row per forgery or photo, [P, D]."""
SETS = ("before", "after")
"""Phases that compare whole sets of forgeries."""
_KEPT = 8
"""Remembered sights: three networks on the clean forgeries of two generators, identity on the clean photos."""


class Sight:
    """Vectors of forgeries by kind: `judge`, and `features` and `identity` where the user gives such networks."""

    def __init__(self, judge: Judge, features: Embedder | None, identity: Embedder | None) -> None:
        self._see: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"judge": judge.features}
        for kind, given in (("features", features), ("identity", identity)):
            if given is not None:
                self._see[kind] = given.embed
        self._sets_by = "judge" if features is None else "features"
        self.sets_name = "judge" if features is None else features.name
        """Of the network that compares sets."""
        self._clean: dict[tuple[str, str, str], Vectors] = {}

    def kinds(self, *, sets: bool, pictures: bool) -> list[str]:
        """What is needed of forgeries; `sets`: are sets of them compared, `pictures`: more than the edit?"""
        wanted = {"judge": True, "features": sets, "identity": pictures}
        return [kind for kind in self._see if wanted[kind]]

    def see(self, kind: str, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Float32 [B, D] of pictures [B, 3, H, W] in [-1, 1]."""
        return self._see[kind](x_BCHW)

    def see_clean(self, kind: str, key: tuple[str, str], look: Callable[[], Vectors]) -> Vectors:
        """The same of all clean forgeries or photos, named by digests of generator and photos: [P, D], remembered.

        `look` sees them.
        """
        return remember(self._clean, (kind, *key), _KEPT, look)

    def pairs(self, forged: Mapping[str, Vectors], twins: Callable[[str], Vectors], photo_P: torch.Tensor) -> SetPairs:
        """What is compared of sets: `forged` vectors by kind, those of the clean `twins`."""
        return SetPairs(forged[self._sets_by], twins(self._sets_by), photo_P.cpu().numpy())


def identity_measures(forged_PD: Vectors, person_PD: Vectors, twin_PD: Vectors) -> dict[str, np.ndarray]:
    """Metrics identity_similarity (with the clean photo) and identity_similarity_clean (with the clean forgery)."""
    forged, person, twin = (torch.from_numpy(vectors) for vectors in (forged_PD, person_PD, twin_PD))
    return {
        "identity_similarity": similarity(forged, person).numpy(),
        "identity_similarity_clean": similarity(forged, twin).numpy(),
    }
