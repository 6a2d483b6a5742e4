"""DSFD: dual shot (Li et al., CVPR 2019), in the layout of the official `dsfd_vgg_0.880.pth` (VGG trunk)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tsdf_ray.detectors.vgg import CHANNELS, VGGDetector, heads, narrowed


class _Enhance(nn.Module):
    """Feature enhance module: branches of one, two and three dilated convolutions side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        third = channels // 3
        rest = channels - 2 * third

        def convolution(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, padding=3, dilation=3)

        self.branch1 = convolution(channels, third)
        self.branch2 = nn.Sequential(convolution(channels, third), nn.ReLU(), convolution(third, third))
        self.branch3 = nn.Sequential(
            convolution(channels, rest), nn.ReLU(), convolution(rest, rest), nn.ReLU(), convolution(rest, rest)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x)], dim=1).relu()


class DSFD(VGGDetector):
    """The second shot detects: levels fused from coarse to fine by products, enhanced, then one head per level.

    The first shot's heads, on the trunk's levels, serve training alone; they are in the file and never run.
    """

    name = "dsfd"
    norms = ("L2Normof1", "L2Normof2", "L2Normof3")
    second_norms = ("L2Normef1", "L2Normef2", "L2Normef3")
    dilation = 3

    def __init__(self, width: float = 1.0) -> None:
        super().__init__(width)
        down = [narrowed(channels, width) for channels in reversed(CHANNELS)]
        self.fpn_topdown = nn.ModuleList(
            nn.Conv2d(above, below, 1) for above, below in zip([down[0], *down], down, strict=False)
        )
        self.fpn_latlayer = nn.ModuleList(nn.Conv2d(channels, channels, 1) for channels in down[1:])
        self.fpn_fem = nn.ModuleList(_Enhance(channels) for channels in reversed(down))
        self.add_norms(self.second_norms, width)
        self.loc_pal1, self.conf_pal1 = heads((4,) * 6, width), heads((2,) * 6, width)
        self.loc_pal2, self.conf_pal2 = heads((4,) * 6, width), heads((2,) * 6, width)

    def answers(
        self, levels: tuple[torch.Tensor, ...], features: tuple[torch.Tensor, ...]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        fused = [self.fpn_topdown[0](levels[-1]).relu()]
        for below, topdown, lateral in zip(
            reversed(levels[:-1]), list(self.fpn_topdown)[1:], self.fpn_latlayer, strict=True
        ):
            from_above = topdown(fused[0]).relu()
            # Corners aligned: torch's default when these weights were trained, and what ports of the code write out.
            grown = F.interpolate(from_above, size=below.shape[-2:], mode="bilinear", align_corners=True)
            fused.insert(0, (grown * lateral(below)).relu())
        enhanced = tuple(module(level) for module, level in zip(self.fpn_fem, fused, strict=True))
        sources = (*self.normed(self.second_norms, enhanced), *enhanced[3:])
        logits = [head(source) for head, source in zip(self.conf_pal2, sources, strict=True)]
        return logits, [head(source) for head, source in zip(self.loc_pal2, sources, strict=True)]
