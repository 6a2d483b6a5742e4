"""The networks of HiSD (Li et al. 2021, arXiv 2103.01456), with the published tensor names and numerics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from tsdf_ray.generators.layout import deviation_norm

SLOPE = 0.2
EPS = 1e-5


def _normalise(h_BCHW: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Per photo and channel; `weight` and `bias` [B or 1, C, 1]. The published eps stands outside of the root, and the
    deviation is unbiased."""
    return deviation_norm(h_BCHW, weight[..., 0], bias[..., 0], EPS)


class InstanceNorm(nn.Module):
    """Instance norm with weights [1, C, 1]; unlike PyTorch's it divides by the unbiased deviation plus eps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, h_BCHW: torch.Tensor) -> torch.Tensor:
        return _normalise(h_BCHW, self.weight, self.bias)


class DownBlock(nn.Module):
    """Residual block to half the side, with instance norms or (extractor, discriminator) without."""

    def __init__(self, before: int, after: int, *, norm: bool) -> None:
        super().__init__()
        self.normed = norm  # a norm's result is its own, and its gradient does not need it
        self.conv1 = nn.Conv2d(before, before, 3, padding=1)
        self.conv2 = nn.Conv2d(before, after, 3, padding=1)
        self.in1 = InstanceNorm(before) if norm else nn.Identity()
        self.in2 = InstanceNorm(before) if norm else nn.Identity()
        self.sc = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        inner = F.avg_pool2d(self.conv1(F.leaky_relu(self.in1(h), SLOPE, inplace=self.normed)), 2)
        inner = self.conv2(F.leaky_relu(self.in2(inner), SLOPE, inplace=self.normed))
        out: torch.Tensor = (F.avg_pool2d(self.sc(h), 2) + inner) / math.sqrt(2)
        return out


class UpBlock(nn.Module):
    """Residual block to twice the side (nearest), with instance norms."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.in1 = InstanceNorm(before)
        self.in2 = InstanceNorm(after)
        self.sc = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        inner = self.conv1(F.interpolate(F.leaky_relu_(self.in1(h), SLOPE), scale_factor=2, mode="nearest"))
        inner = self.conv2(F.leaky_relu_(self.in2(inner), SLOPE))
        out: torch.Tensor = (F.interpolate(self.sc(h), scale_factor=2, mode="nearest") + inner) / math.sqrt(2)
        return out


class MiddleBlock(nn.Module):
    """Residual block of the translator; its two instance norms take weight and bias from the style."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.channels = (before, after)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.sc = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, h: torch.Tensor, style_BP: torch.Tensor) -> torch.Tensor:
        """`style_BP` [B, 2 before + 2 after]: bias and weight - 1 of the first norm, then of the second."""
        before, after = self.channels
        bias1, scale1, bias2, scale2 = torch.split_with_sizes(
            style_BP[:, :, None].float(), [before, before, after, after], 1
        )
        inner = self.conv1(F.leaky_relu_(_normalise(h, 1 + scale1, bias1), SLOPE))
        inner = self.conv2(F.leaky_relu_(_normalise(inner, 1 + scale2, bias2), SLOPE))
        out: torch.Tensor = (self.sc(h) + inner) / math.sqrt(2)
        return out


class LinearBlock(nn.Module):
    """ReLU, then a linear layer."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(F.relu(h))
        return out


class Extractors(nn.Module):
    """Photos [B, 3, H, W] to one style per tag [B, tags, style]."""

    def __init__(self, widths: Sequence[int], tags: int, style: int) -> None:
        super().__init__()
        self.tags = tags
        blocks = [DownBlock(before, after, norm=False) for before, after in pairwise(widths)]
        self.model = nn.Sequential(
            nn.Conv2d(3, widths[0], 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Conv2d(widths[-1], tags * style, 1)
        )

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        styles: torch.Tensor = self.model(x_BCHW)
        return styles.view(len(x_BCHW), self.tags, -1)


class Translator(nn.Module):
    """Moves a code [B, C, h, w] towards a style [B, style], where its mask says so."""

    def __init__(self, code: int, widths: Sequence[int], style: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(code, widths[0], 1), *(MiddleBlock(a, b) for a, b in pairwise(widths)))
        self.sizes = [2 * (before + after) for before, after in pairwise(widths)]
        self.style_to_params = nn.Linear(style, sum(self.sizes))
        self.features = nn.Sequential(nn.Conv2d(widths[-1], code, 1))
        self.masks = nn.Sequential(nn.Conv2d(widths[-1], code, 1), nn.Sigmoid())

    def forward(self, e_BCHW: torch.Tensor, style_BS: torch.Tensor) -> torch.Tensor:
        parameters = torch.split_with_sizes(self.style_to_params(style_BS), self.sizes, 1)
        first, *blocks = self.model
        h = first(e_BCHW)
        for block, parameters_BP in zip(blocks, parameters, strict=True):
            h = block(h, parameters_BP)
        mask = self.masks(h)
        out: torch.Tensor = self.features(h) * mask + e_BCHW * (1 - mask)
        return out


class Mapper(nn.Module):
    """Latents [B, noise] to a style of every choice of a tag [B, J, style]."""

    def __init__(self, noise: int, before: Sequence[int], after: Sequence[int], choices: int, style: int) -> None:
        super().__init__()
        self.pre_model = nn.Sequential(nn.Linear(noise, before[0]), *(LinearBlock(a, b) for a, b in pairwise(before)))
        self.post_models = nn.ModuleList(
            nn.Sequential(*(LinearBlock(a, b) for a, b in pairwise(after)), nn.Linear(after[-1], style))
            for _ in range(choices)
        )

    @property
    def posts(self) -> list[nn.Sequential]:
        """The parts for one choice each."""
        return [post for post in self.post_models if isinstance(post, nn.Sequential)]

    def forward(self, z_BZ: torch.Tensor) -> torch.Tensor:
        h = self.pre_model(z_BZ)
        return torch.stack([post(h) for post in self.post_models], 1)


def initialise(module: nn.Module) -> None:
    """The published start of all convolutions and linear layers: Kaiming normal (fan in, ReLU), biases 0.01."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.01)


class HiSDGenerator(nn.Module):
    """Encoder, decoder, style extractor, and a translator and a mapper per tag.

    `widths` are the encoder's; the decoder mirrors them. `choices` are the numbers of choices of the tags. The sides
    of photos are multiples of 2^(len(widths) - 1).
    """

    def __init__(
        self,
        widths: Sequence[int],
        translator: Sequence[int],
        extractor: Sequence[int],
        mapper: tuple[Sequence[int], Sequence[int]],
        choices: Sequence[int],
        *,
        style: int,
        noise: int,
    ) -> None:
        super().__init__()
        downs = [DownBlock(a, b, norm=True) for a, b in pairwise(widths)]
        ups = [UpBlock(b, a) for a, b in reversed(list(pairwise(widths)))]
        self.encoder = nn.Sequential(nn.Conv2d(3, widths[0], 1), *downs)
        self.decoder = nn.Sequential(*ups, nn.Conv2d(widths[0], 3, 1))
        self.extractors = Extractors(extractor, len(choices), style)
        self.translators = nn.ModuleList(Translator(widths[-1], translator, style) for _ in choices)
        self.mappers = nn.ModuleList(Mapper(noise, *mapper, count, style) for count in choices)
        initialise(self)

    @torch.no_grad()
    def scale_last(self, factor: float) -> None:
        """Multiply the weights of the layers that give photos and styles."""
        mappers = [mapper for mapper in self.mappers if isinstance(mapper, Mapper)]
        last = [self.decoder[-1], self.extractors.model[-1], *(post[-1] for m in mappers for post in m.posts)]
        for layer in last:
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            layer.weight.mul_(factor)

    def encode(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The code [B, widths[-1], h, w]: the mid feature."""
        code: torch.Tensor = self.encoder(x_BCHW)
        return code

    def decode(self, e_BCHW: torch.Tensor) -> torch.Tensor:
        """The photo [B, 3, H, W] of a code; not bounded."""
        photo: torch.Tensor = self.decoder(e_BCHW)
        return photo

    def extract(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The photos' own styles [B, tags, style]."""
        styles: torch.Tensor = self.extractors(x_BCHW)
        return styles

    def map(self, z_BZ: torch.Tensor, tag: int) -> torch.Tensor:
        """Styles of every choice of a tag [B, J, style] from latents [B, noise]."""
        styles: torch.Tensor = self.mappers[tag](z_BZ)
        return styles

    def translate(self, e_BCHW: torch.Tensor, style_BS: torch.Tensor, tag: int) -> torch.Tensor:
        """The codes moved to a style of one tag."""
        code: torch.Tensor = self.translators[tag](e_BCHW, style_BS)
        return code


class HiSDDiscriminator(nn.Module):
    """Photos [B, 3, H, W], a style each and tag-irrelevant conditions to a score as translated and one as cycled."""

    def __init__(self, widths: Sequence[int], style: int, choices: Sequence[int], conditions: Sequence[int]) -> None:
        super().__init__()
        downs = [DownBlock(a, b, norm=False) for a, b in pairwise(widths)]
        self.conv = nn.Sequential(nn.Conv2d(3, widths[0], 1), *downs, nn.AdaptiveAvgPool2d(1))
        self.fcs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(widths[-1] + style + extra, 2 * count, 1))
            for count, extra in zip(choices, conditions, strict=True)
        )
        initialise(self)

    def body(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """What the heads see of the photos, [B, C]."""
        seen: torch.Tensor = self.conv(x_BCHW)
        return seen.flatten(1)

    def head(self, seen_BC: torch.Tensor, style_BS: torch.Tensor, y_BY: torch.Tensor, tag: int) -> torch.Tensor:
        """Scores [B, 2, J] under each choice of a tag: as a translated photo, and as a cycled one."""
        inputs = torch.cat([seen_BC, style_BS.to(seen_BC.dtype), y_BY.to(seen_BC.dtype)], 1)
        scores: torch.Tensor = self.fcs[tag](inputs[:, :, None, None])
        return scores.view(len(seen_BC), 2, -1).float()
