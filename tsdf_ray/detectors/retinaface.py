"""RetinaFace with MobileNet 0.25: a one-stage detector (Deng et al., CVPR 2020; layout of the official PyTorch file).

Tensor names equal the official ones, so a `mobilenet0.25_Final.pth` loads as it is. Two trainings of this network are
in circulation, and their anchors differ (the file does not say which): see `ANCHOR_SIZES`. The batch norms are folded
into the convolutions after loading, since weights are never trained here and a pass costs less without them.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tsdf_ray.detectors.base import Boxes, Detector, RawOutput, check_photos, widened
from tsdf_ray.detectors.priors import decode, keep_best, one_group, square_priors
from tsdf_ray.detectors.weights import put_weights
from tsdf_ray.digest import file_digest

STRIDES = (8, 16, 32)
AnchorSizes = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
ANCHOR_SIZES: AnchorSizes = ((16, 32), (64, 128), (256, 512))
"""Sides of the two square anchors of each cell, per stride, in pixels: biubug6/Pytorch_Retinaface and our weights."""
KNOWN_ANCHOR_SIZES: dict[str, AnchorSizes] = {
    # biubug6/Face-Detector-1MB-with-landmark, mobilenet0.25_Final.pth (data/config.py, cfg_mnet)
    "ed6fa7d45a5179f03cb5ce82c73b0c6711372968e53782e88395acee88d319e1": ((10, 20), (32, 64), (128, 256)),
}
"""SHA-256 of third-party weights trained on other anchors -> their sizes."""
BGR_MEAN = (104.0, 117.0, 123.0)
NMS_IOU = 0.4
SLOPE = 0.1


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, *, active: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.LeakyReLU(SLOPE)] if active else []))


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(SLOPE),
    )


class _Body(nn.Module):
    """MobileNet v1 of width 0.25 without its classifier; the three stages end at strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            _convolution(3, 8, 3, stride=2),
            _separable(8, 16),
            _separable(16, 32, stride=2),
            _separable(32, 32),
            _separable(32, 64, stride=2),
            _separable(64, 64),
        )
        self.stage2 = nn.Sequential(_separable(64, 128, stride=2), *(_separable(128, 128) for _ in range(5)))
        self.stage3 = nn.Sequential(_separable(128, 256, stride=2), _separable(256, 256))


class _Pyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output1 = _convolution(64, 64, 1)
        self.output2 = _convolution(128, 64, 1)
        self.output3 = _convolution(256, 64, 1)
        self.merge1 = _convolution(64, 64, 3)
        self.merge2 = _convolution(64, 64, 3)

    def forward(self, *stages: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        fine, middle, coarse = self.output1(stages[0]), self.output2(stages[1]), self.output3(stages[2])
        middle = self.merge2(middle + F.interpolate(coarse, size=middle.shape[-2:], mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, size=fine.shape[-2:], mode="nearest"))
        return fine, middle, coarse


class _ContextHead(nn.Module):
    """SSH context module: branches of receptive field 3, 5 and 7, 64 channels out (official spelling of the names)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3X3 = _convolution(64, 32, 3, active=False)
        self.conv5X5_1 = _convolution(64, 16, 3)
        self.conv5X5_2 = _convolution(16, 16, 3, active=False)
        self.conv7X7_2 = _convolution(16, 16, 3)
        self.conv7x7_3 = _convolution(16, 16, 3, active=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shared = self.conv5X5_1(x)
        branches = (self.conv3X3(x), self.conv5X5_2(shared), self.conv7x7_3(self.conv7X7_2(shared)))
        return torch.cat(branches, dim=1).relu()


class _Head(nn.Module):
    """Per cell: `values` numbers for each of its two anchors."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(64, 2 * values, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv1x1(x).permute(0, 2, 3, 1)
        return out.reshape(len(x), -1, self.values)


class RetinaFace(Detector):
    """Features: the three SSH outputs, 64 channels at strides 8, 16 and 32. Anchors: one group, two per cell."""

    name = "retinaface"
    feature_levels = ("ssh1", "ssh2", "ssh3")

    def __init__(self, anchor_sizes: AnchorSizes = ANCHOR_SIZES) -> None:
        super().__init__()
        self.anchor_sizes = anchor_sizes
        self.body = _Body()
        self.fpn = _Pyramid()
        self.ssh1, self.ssh2, self.ssh3 = _ContextHead(), _ContextHead(), _ContextHead()
        self.ClassHead = nn.ModuleList(_Head(2) for _ in STRIDES)
        self.BboxHead = nn.ModuleList(_Head(4) for _ in STRIDES)
        self.LandmarkHead = nn.ModuleList(_Head(10) for _ in STRIDES)  # in the official file; never run

    @classmethod
    def load(cls, weights: Path | None = None, anchor_sizes: AnchorSizes | None = None) -> RetinaFace:
        """As in the contract; without `anchor_sizes` those known for the file's digest, else `ANCHOR_SIZES`."""
        detector = cls()
        put_weights(detector, cls.name, weights)
        if weights and not anchor_sizes:
            anchor_sizes = KNOWN_ANCHOR_SIZES.get(file_digest(weights))
        detector.anchor_sizes = anchor_sizes or ANCHOR_SIZES
        detector.eval().requires_grad_(False)
        for module in detector.modules():
            if isinstance(module, nn.Sequential):
                _fold_norms(module)
        # Again: folding made new layers.
        return detector.eval().requires_grad_(False)

    def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        check_photos(x_BCHW)
        mean_C11 = x_BCHW.new_tensor(BGR_MEAN)[:, None, None]
        x_BCHW = (x_BCHW.flip(1) + 1) * 127.5 - mean_C11
        stage1 = self.body.stage1(x_BCHW)
        stage2 = self.body.stage2(stage1)
        fine, middle, coarse = self.fpn(stage1, stage2, self.body.stage3(stage2))
        return widened(self.ssh1(fine)), widened(self.ssh2(middle)), widened(self.ssh3(coarse))

    def raw(self, x_BCHW: torch.Tensor) -> RawOutput:
        features = self.features(x_BCHW)
        logits_BA2, offsets_BA4 = (
            widened(torch.cat([head(level) for head, level in zip(heads, features, strict=True)], dim=1))
            for heads in (self.ClassHead, self.BboxHead)
        )
        height, width = x_BCHW.shape[-2:]
        maps = tuple((-(-height // stride), -(-width // stride)) for stride in STRIDES)
        priors_A4 = square_priors(maps, STRIDES, self.anchor_sizes).to(offsets_BA4)
        group = one_group("anchors", logits_BA2[..., 1] - logits_BA2[..., 0], decode(offsets_BA4, priors_A4))
        return RawOutput(features, (group,))

    @torch.no_grad()
    def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list[Boxes]:
        (group,) = self.raw(x_BCHW).groups
        return keep_best(group, len(x_BCHW), score_threshold, NMS_IOU)


def _fold_norms(layers: nn.Sequential) -> None:
    for index, (first, second) in enumerate(zip(list(layers)[:-1], list(layers)[1:], strict=True)):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            layers[index] = fuse_conv_bn_eval(first, second)
            layers[index + 1] = nn.Identity()
