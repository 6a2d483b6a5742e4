"""A generator that counts the photos that pass through it."""

from __future__ import annotations

from collections import Counter

import torch

from tsdf_ray.testing.linear import LinearFamily


class CountedFamily(LinearFamily):
    """Counts photos by kind of pass: encoder alone, whole with gradient, clean."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        self.seen["encoder"] += len(x_BCHW)
        return super().features(x_BCHW, c_BA)

    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen["whole" if x_BCHW.requires_grad else "clean"] += len(x_BCHW)
        return self.edit(x_BCHW, c_BA), super().features(x_BCHW, c_BA)
