"""The judge's network: a plain stack of convolutions with group norms (VGG-like), no skip connections.

It shares neither shape nor weights with the labeller of the packaged sample (a residual network with batch norms) nor
with any classifier in a generator's loss.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tsdf_ray.faces.faceset import HAIR

SIZE = 96
"""Side in pixels at which the judge looks at every photo: enough for hair and sex, and cheap."""

JUDGED = (*HAIR, "Male")
"""The attributes it knows, in the order of its outputs."""


def _stage(c_in: int, c_out: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels in (c_in, c_out):
        layers += [nn.Conv2d(channels, c_out, 3, padding=1, bias=False), nn.GroupNorm(8, c_out), nn.SiLU()]
    return layers


class JudgeNet(nn.Module):
    """Photos float32 [B, 3, H, W] in [-1, 1], any size (resized to 96 px, antialiased) -> logits float32 [B, 4].

    The first three logits are hair colours (softmax), the last is Male (sigmoid): `JUDGED`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 48, 4, stride=4), nn.GroupNorm(8, 48), nn.SiLU())
        self.stages = nn.Sequential(
            *_stage(48, 48), nn.MaxPool2d(2), *_stage(48, 96), nn.MaxPool2d(2), *_stage(96, 160)
        )
        self.head = nn.Sequential(nn.Dropout(0.4), nn.Linear(320, len(JUDGED)))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(x_BCHW))
        return logits.float()

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """What the last layer sees, [B, 320]: mean and maximum of 160 channels over the photo."""
        if x_BCHW.shape[-2:] != (SIZE, SIZE):
            size = (SIZE, SIZE)
            x_BCHW = F.interpolate(x_BCHW, size=size, mode="bilinear", antialias=True, align_corners=False)
        h_BCHW = self.stages(self.stem(x_BCHW))
        return torch.cat([h_BCHW.mean((2, 3)), h_BCHW.amax((2, 3))], 1)
