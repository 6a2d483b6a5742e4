"""The `Detector` contract: one differentiable pass down to the pixels, and plain detection of boxes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Boxes:
    """What `detect` found in one photo, best score first: boxes_N4 float32 (x1, y1, x2, y2) in pixels, scores_N in [0, 1]."""

    boxes_N4: torch.Tensor
    scores_N: torch.Tensor

    def __len__(self) -> int:
        return int(self.scores_N.numel())


@dataclass(frozen=True)
class Anchors:
    """Candidates of one stage or scale, flat over the batch, all differentiable with respect to the photos.

    A cascade (MTCNN) has a group per P-Net scale and one each for the crops that reach R-Net and O-Net, so the number
    of anchors may differ from photo to photo; a one-stage detector has a single group.
    """

    name: str
    photo_N: torch.Tensor
    """int64 [N]: which photo of the batch the anchor belongs to."""
    scores_N: torch.Tensor
    """float32 [N] in [0, 1]: probability of a face."""
    log_odds_N: torch.Tensor
    """float32 [N]: face logit minus background logit; keeps a gradient where the softmax saturates."""
    boxes_N4: torch.Tensor
    """float32 [N, 4] in pixels of the input photo."""


@dataclass(frozen=True)
class RawOutput:
    """One differentiable pass."""

    features: tuple[torch.Tensor, ...]
    """Mid features, finest level first, each float32 [B, C_l, H_l, W_l] (MTCNN: see its module)."""
    groups: tuple[Anchors, ...]


class Detector(nn.Module, ABC):
    """A face detector with frozen weights.

    Photos are float32 [B, 3, H, W] in [-1, 1], RGB, H and W from 64 to 1024. Weights never get a gradient; photos do.
    """

    name: str = ""

    @abstractmethod
    def raw(self, x_BCHW: torch.Tensor) -> RawOutput:
        """Features and anchors of the batch with a gradient path to every pixel. No NMS, no threshold."""

    @abstractmethod
    def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The features of `raw` alone, without the heads where they are not needed."""

    @abstractmethod
    def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list[Boxes]:
        """Faces of each photo with score > `score_threshold` after NMS, batched, without gradient."""
