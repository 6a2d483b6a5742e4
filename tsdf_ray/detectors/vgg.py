"""What S3FD and DSFD share: the VGG trunk with two stages behind it, normed levels, priors and the way to boxes.

Names and shapes are those of yxlijun/S3FD.pytorch and yxlijun/DSFD.pytorch, whose files are not packaged. Photos enter
as RGB 0..255 minus the mean colour: both repositories turn to BGR, subtract the BGR mean and turn back.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import nn

from tsdf_ray.detectors.base import Boxes, Detector, RawOutput, check_photos, widened
from tsdf_ray.detectors.priors import cells, decode, keep_best, one_group, square_priors
from tsdf_ray.detectors.weights import put_weights

CHANNELS = (256, 512, 512, 1024, 512, 256)
"""Of the six levels, at strides 4 to 128."""
STRIDES = (4, 8, 16, 32, 64, 128)
SIZES = ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
"""Side of the one square prior of each cell, per level, in pixels (DSFD: of the second shot, which detects)."""
RGB_MEAN = (123.0, 117.0, 104.0)
NMS_IOU = 0.3
NMS_LIMIT = 2000
"""Boxes of a photo that NMS looks at. The published 5,000 would need a gigabyte for their pairs."""

POOL, POOL_UP = "pool", "pool rounded up"
TRUNK = (
    *(64, 64, POOL),
    *(128, 128, POOL),
    *(256, 256, 256, POOL_UP),
    *(512, 512, 512, POOL),
    *(512, 512, 512, POOL),
)
ENDS = (16, 23, 30)
"""Layers after which conv3_3, conv4_3 and conv5_3 (with their ReLU) are read."""


def narrowed(channels: int, width: float) -> int:
    """`channels` of the official network at a width multiplier."""
    return max(2, round(channels * width))


def heads(values: tuple[int, ...], width: float) -> nn.ModuleList:
    """A 3 x 3 convolution per level with that many outputs."""
    pairs = zip(CHANNELS, values, strict=True)
    return nn.ModuleList(nn.Conv2d(narrowed(inputs, width), outputs, 3, padding=1) for inputs, outputs in pairs)


class L2Norm(nn.Module):
    """Channels of each cell scaled to length 1, then by a learned factor per channel."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        # vector_norm has gradient 0 where a cell is all zero; the root of a sum of squares has NaN there.
        length_B1HW = torch.linalg.vector_norm(x_BCHW, dim=1, keepdim=True) + 1e-10
        normed: torch.Tensor = self.weight[:, None, None] * (x_BCHW / length_B1HW)
        return normed


def _trunk(width: float, dilation: int) -> nn.ModuleList:
    layers, inputs = nn.ModuleList(), 3
    for item in TRUNK:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2, ceil_mode=item == POOL_UP))
            continue
        outputs = narrowed(item, width)
        layers.extend([nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)])
        inputs = outputs
    wide = narrowed(1024, width)
    layers.extend([nn.Conv2d(inputs, wide, 3, padding=dilation, dilation=dilation), nn.ReLU(inplace=True)])
    layers.extend([nn.Conv2d(wide, wide, 1), nn.ReLU(inplace=True)])
    return layers


def _extras(width: float) -> nn.ModuleList:
    wide, big, middle, small = (narrowed(channels, width) for channels in (1024, 512, 256, 128))
    return nn.ModuleList(
        [
            nn.Conv2d(wide, middle, 1),
            nn.Conv2d(middle, big, 3, stride=2, padding=1),
            nn.Conv2d(big, small, 1),
            nn.Conv2d(small, middle, 3, stride=2, padding=1),
        ]
    )


class VGGDetector(Detector):
    """Six levels with one prior per cell, one group of anchors; features: the three finest levels, L2-normed."""

    feature_levels = ("conv3_3", "conv4_3", "conv5_3")
    norms: ClassVar[tuple[str, str, str]]
    """Official names of the L2 norms of the features."""
    dilation: ClassVar[int]
    """Of the convolution that stands for VGG's first dense layer; no weights file says it."""

    def __init__(self, width: float = 1.0) -> None:
        """width: multiplier of all channels; official files fit 1."""
        super().__init__()
        self.vgg = _trunk(width, self.dilation)
        self.extras = _extras(width)
        self.add_norms(self.norms, width)

    def add_norms(self, names: tuple[str, str, str], width: float) -> None:
        """L2 norms of the three finest levels, with the scales they were initialised to."""
        for name, channels, scale in zip(names, CHANNELS, (10.0, 8.0, 5.0), strict=False):
            self.add_module(name, L2Norm(narrowed(channels, width), scale))

    def normed(self, names: tuple[str, str, str], levels: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """The three finest of `levels` through the norms of that name."""
        return tuple(self.get_submodule(name)(level) for name, level in zip(names, levels, strict=False))

    @classmethod
    def load(cls, weights: Path | None = None) -> Self:
        """The detector with the official weights in the file `weights`, frozen, in evaluation mode.

        Raises UserError naming the official file when `weights` is None or absent, and as `put_weights` does.
        """
        detector = cls()
        put_weights(detector, cls.name, weights)
        return detector.eval().requires_grad_(False)

    @abstractmethod
    def answers(
        self, levels: tuple[torch.Tensor, ...], features: tuple[torch.Tensor, ...]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Per level (background, face) logits [B, 2, H, W] and box offsets [B, 4, H, W].

        levels: the six levels as the network made them; features: the three finest, normed.
        """

    def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(widened(level) for level in self.normed(self.norms, self._fine(x_BCHW)))

    def raw(self, x_BCHW: torch.Tensor) -> RawOutput:
        fine = self._fine(x_BCHW)
        features = tuple(widened(level) for level in self.normed(self.norms, fine))
        logits, offsets = self.answers((*fine, *self._coarse(fine[-1])), features)
        logits_BA2, offsets_BA4 = widened(cells(logits, 2)), widened(cells(offsets, 4))
        maps = tuple((level.shape[2], level.shape[3]) for level in offsets)
        boxes_BA4 = decode(offsets_BA4, square_priors(maps, STRIDES, SIZES).to(offsets_BA4))
        return RawOutput(features, (one_group("anchors", logits_BA2[..., 1] - logits_BA2[..., 0], boxes_BA4),))

    @torch.no_grad()
    def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list[Boxes]:
        (group,) = self.raw(x_BCHW).groups
        return keep_best(group, len(x_BCHW), score_threshold, NMS_IOU, NMS_LIMIT)

    def _fine(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """conv3_3, conv4_3 and conv5_3."""
        check_photos(x_BCHW)
        x = (x_BCHW + 1) * 127.5 - x_BCHW.new_tensor(RGB_MEAN)[:, None, None]
        levels = []
        for first, end in zip((0, *ENDS), ENDS, strict=False):
            for layer in self.vgg[first:end]:
                x = layer(x)
            levels.append(x)
        return tuple(levels)

    def _coarse(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The levels at strides 32, 64 and 128, from conv5_3."""
        for layer in self.vgg[ENDS[-1] :]:
            x = layer(x)
        levels = [x]
        for narrow, down in ((0, 1), (2, 3)):
            x = self.extras[down](self.extras[narrow](x).relu()).relu()
            levels.append(x)
        return tuple(levels)
