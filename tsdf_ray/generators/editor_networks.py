"""The networks of the light editor: generator, discriminator, and the small classifier of its loss."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from tsdf_ray.generators.layout import instance_norm

UNSHUFFLE = 4


class LabelNorm(nn.Module):
    """Instance norm (per photo and channel) followed by a scale and a shift that are linear in the labels."""

    def __init__(self, channels: int, labels: int) -> None:
        super().__init__()
        self.film = nn.Linear(labels, 2 * channels)
        nn.init.normal_(self.film.weight, std=0.1)
        nn.init.zeros_(self.film.bias)

    def forward(self, h_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(c_BA)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, instance_norm(h_BCHW), 1 + scale)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with label norms, added to the input."""

    def __init__(self, channels: int, labels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False)
        self.norm1 = LabelNorm(channels, labels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False)
        self.norm2 = LabelNorm(channels, labels)

    def forward(self, h_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.norm1(self.conv1(h_BCHW), c_BA))
        change: torch.Tensor = self.norm2(self.conv2(inner), c_BA)
        return h_BCHW + change


class UpBlock(nn.Module):
    """To twice the side: 1 x 1 convolution and pixel shuffle, the skip added, 3 x 3 convolution with label norm."""

    def __init__(self, coarse: int, fine: int, labels: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.merge = nn.Conv2d(fine, fine, 3, padding=1, padding_mode="reflect", bias=False)
        self.norm = LabelNorm(fine, labels)

    def forward(self, h_BCHW: torch.Tensor, skip_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        h = F.pixel_shuffle(self.up(h_BCHW), 2) + skip_BCHW
        return F.leaky_relu(self.norm(self.merge(h), c_BA), 0.2)


class EditorGenerator(nn.Module):
    """Photos [B, 3, H, W], labels [B, A] to gain and shift. Sides are multiples of 16 with three widths, from 32 on."""

    def __init__(self, labels: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        self.stem = nn.Conv2d(3 * UNSHUFFLE**2, widths[0], 3, padding=1, padding_mode="reflect")
        self.downs = nn.ModuleList(
            nn.Conv2d(fine, coarse, 4, stride=2, padding=1, padding_mode="reflect") for fine, coarse in steps
        )
        self.blocks = nn.ModuleList(ResidualBlock(widths[-1], labels) for _ in range(blocks))
        self.ups = nn.ModuleList(UpBlock(coarse, fine, labels) for fine, coarse in reversed(steps))
        self.head = nn.Conv2d(widths[0], 6 + 3 * 2**2, 3, padding=1, padding_mode="reflect")
        with torch.no_grad():
            self.head.weight.mul_(0.1)

    def encode(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The skips [B, widths[i], H/4/2^i, W/4/2^i], finest first, and the mid feature, the last block's output."""
        skips = [F.leaky_relu(self.stem(F.pixel_unshuffle(x_BCHW, UNSHUFFLE)), 0.2)]
        for down in self.downs:
            skips.append(F.leaky_relu(down(skips[-1]), 0.2))
        h = skips.pop()
        for block in self.blocks:
            h = block(h, c_BA)
        return skips, h

    def decode(
        self, skips: list[torch.Tensor], mid_BCHW: torch.Tensor, c_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gain and shift of each colour, both float32 [B, 3, H, W], from what `encode` gave."""
        h = F.leaky_relu(mid_BCHW, 0.2)
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            h = up(h, skip, c_BA)
        fields, detail = self.head(h).float().split((6, 12), 1)
        # Enlarged smoothly: on a finer grid it finds patterns that fool the loss before it finds hair colours.
        gain, shift = _enlarge(fields, UNSHUFFLE).chunk(2, 1)
        return gain, shift + _enlarge(F.pixel_shuffle(detail, 2), UNSHUFFLE // 2)


def _enlarge(h_BCHW: torch.Tensor, factor: int) -> torch.Tensor:
    return F.interpolate(h_BCHW, scale_factor=factor, mode="bilinear", align_corners=False)


class EditorDiscriminator(nn.Module):
    """Photos [B, 3, H, W] to one real/fake map per label value [B, V, h, w], 1/32 of the side with four widths."""

    def __init__(self, maps: int, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(UNSHUFFLE),
            nn.Conv2d(3 * UNSHUFFLE**2, widths[0], 3, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for before, width in pairwise(widths):
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], maps, 3, padding=1)
        # PyTorch's default start shrinks the signal layer by layer: then the generator runs away from a blind critic.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, 0.2)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.head.weight.mul_(0.3)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.head(self.body(x_BCHW))
        return maps.float()
