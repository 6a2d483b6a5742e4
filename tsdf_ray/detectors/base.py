"""The `Detector` contract: one differentiable pass down to the pixels, and plain detection of boxes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import nn

MIN_SIDE, MAX_SIDE = 64, 1024


@dataclass(frozen=True)
class Boxes:
    """What `detect` found in one photo, best score first.

    boxes_N4 float32 (x1, y1, x2, y2) in pixels, not clipped to the photo; scores_N float32 in [0, 1].
    """

    boxes_N4: torch.Tensor
    scores_N: torch.Tensor

    def __len__(self) -> int:
        return int(self.scores_N.numel())

    @staticmethod
    def per_photo(boxes_K4: torch.Tensor, scores_K: torch.Tensor, photo_K: torch.Tensor, photos: int) -> list[Boxes]:
        """One `Boxes` for each of `photos` photos from flat results that stand by photo, best score first."""
        counts = torch.bincount(photo_K, minlength=photos).tolist()
        parts = zip(torch.split(boxes_K4.float(), counts), torch.split(scores_K.float(), counts), strict=True)
        return [Boxes(boxes_N4, scores_N) for boxes_N4, scores_N in parts]


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
    """Mid features, one per level, each float32 [B, C_l, H_l, W_l]; the shapes depend on the photos' size alone."""
    groups: tuple[Anchors, ...]


class Detector(nn.Module, ABC):
    """A face detector with frozen weights.

    Photos are float32 [B, 3, H, W] in [-1, 1], RGB, H and W from 64 to 1024. Weights never get a gradient; photos do.
    """

    name: str = ""
    feature_levels: ClassVar[tuple[str, ...]] = ()
    """What each tensor of `features` is, in order; the feature loss of the poisoning weighs exactly these levels."""

    @classmethod
    @abstractmethod
    def load(cls, weights: Path | None = None) -> Self:
        """The detector with the packaged weights, or those of a file: frozen, in evaluation mode.

        Raises UserError naming the file, and the tensor with what was expected and found, when they do not fit.
        """

    @abstractmethod
    def raw(self, x_BCHW: torch.Tensor) -> RawOutput:
        """Features and anchors of the batch with a gradient path to every pixel. No NMS, no threshold."""

    @abstractmethod
    def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The features of `raw` alone, without the heads where they are not needed."""

    @abstractmethod
    def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list[Boxes]:
        """Faces of each photo with score > `score_threshold` after NMS, batched, without gradient."""


def widened(x: torch.Tensor) -> torch.Tensor:
    """float32 where a pass under autocast left bfloat16: losses, log-odds and boxes want the digits."""
    return x.float() if x.dtype in {torch.bfloat16, torch.float16} else x


def check_photos(x_BCHW: torch.Tensor) -> None:
    """Raises ValueError when `x` is not a batch of RGB photos with sides from MIN_SIDE to MAX_SIDE."""
    shape = tuple(x_BCHW.shape)
    if len(shape) != 4 or shape[1] != 3 or not all(MIN_SIDE <= side <= MAX_SIDE for side in shape[2:]):
        raise ValueError(f"photos must be [B, 3, H, W] with H and W from {MIN_SIDE} to {MAX_SIDE}, found {list(shape)}")
