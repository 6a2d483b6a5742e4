"""The light editor: a label-conditioned image-to-image generator small enough to attack, evaluate and retrain on a CPU.

Generator, on the photo at half its side: pixel unshuffle by 4, one stride-2 down, residual blocks whose instance norms
are scaled and shifted by the target labels (FiLM, Perez et al. 2018, arXiv 1709.07871), one up with a skip. Its head
says how light changes in atanh space, G(x, c) = tanh((1 + gain) * atanh(x) + shift): two smooth fields repaint, finer
detail redraws. An untrained editor is nearly the identity. The mid feature is taken after the last residual block.

Loss: least squares (LSGAN, Mao et al. 2017, arXiv 1611.04076) on one real/fake map per label value, as StarGAN v2 has
one per domain (Choi et al. 2020, arXiv 1912.01865), with real photos under a wrong label as further fakes (Reed et al.
2016, arXiv 1605.05396); L1 cycle and identity; cross-entropy of a small frozen attribute classifier towards the target.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

from tsdf_ray.faces.faceset import HAIR
from tsdf_ray.generators.base import Family
from tsdf_ray.generators.domains import groups, label_cross_entropy

UNSHUFFLE = 4
LIMIT = 0.98
"""Pixels are clamped to +-LIMIT before atanh, where it is still moderate (2.3)."""
CLASSIFIER_SIDE = 32


class EditorConfig(BaseModel):
    """Size and loss of the light editor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attributes: tuple[str, ...] = Field(
        (*HAIR, "Male"), min_length=1, description="labels it edits; hair colours exclude each other"
    )
    shrink: int = Field(
        2,
        ge=1,
        le=8,
        description="all networks see the photo at this fraction of its side; the edit is applied to all of it",
    )
    stem_width: int = Field(48, ge=4, le=512, description="channels at a quarter of the side seen")
    width: int = Field(96, ge=4, le=1024, description="channels at an eighth of the side seen (bottleneck)")
    blocks: int = Field(2, ge=1, le=32, description="residual blocks at the bottleneck")
    discriminator_widths: tuple[int, ...] = Field(
        (48, 96, 128, 128),
        min_length=2,
        max_length=8,
        description="channels of the discriminator, from half size on",
    )
    classifier_width: int = Field(32, ge=4, le=512, description="first width of the frozen attribute classifier")
    adversarial_weight: float = Field(3.0, ge=0.0, le=1e3, description="weight of the generator's least-squares term")
    wrong_label_weight: float = Field(
        0.5, ge=0.0, le=1e3, description="weight of real photos shown under another label, which must look fake"
    )
    cycle_weight: float = Field(5.0, ge=0.0, le=1e3, description="weight of L1(G(G(x, target), own), x)")
    identity_weight: float = Field(2.5, ge=0.0, le=1e3, description="weight of L1(G(x, own), x)")
    identity_share: float = Field(0.25, ge=0.0, le=1.0, description="share of a batch that the identity term sees")
    classifier_weight: float = Field(0.9, ge=0.0, le=1e3, description="weight of the frozen classifier's term")

    @field_validator("attributes")
    @classmethod
    def _unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each attribute may be named once")
        return value


class LabelNorm(nn.Module):
    """Instance norm (per photo and channel) followed by a scale and a shift that are linear in the labels."""

    def __init__(self, channels: int, labels: int) -> None:
        super().__init__()
        self.film = nn.Linear(labels, 2 * channels)
        nn.init.normal_(self.film.weight, std=0.1)
        nn.init.zeros_(self.film.bias)

    def forward(self, h_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(c_BA)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, F.instance_norm(h_BCHW), 1 + scale)


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


class EditorGenerator(nn.Module):
    """Photos [B, 3, H, W] (sides multiples of 8 x shrink, from 16 x shrink), labels [B, A] to gain and shift."""

    def __init__(self, config: EditorConfig) -> None:
        super().__init__()
        labels, stem, width = len(config.attributes), config.stem_width, config.width
        self.shrink = config.shrink
        self.stem = nn.Conv2d(3 * UNSHUFFLE**2, stem, 3, padding=1, padding_mode="reflect")
        self.down = nn.Conv2d(stem, width, 4, stride=2, padding=1, padding_mode="reflect")
        self.blocks = nn.ModuleList(ResidualBlock(width, labels) for _ in range(config.blocks))
        self.up = nn.Conv2d(width, 4 * stem, 1)
        self.merge = nn.Conv2d(stem, stem, 3, padding=1, padding_mode="reflect", bias=False)
        self.merge_norm = LabelNorm(stem, labels)
        self.head = nn.Conv2d(stem, 6 + 3 * 2**2, 3, padding=1, padding_mode="reflect")
        with torch.no_grad():
            self.head.weight.mul_(0.1)

    def encode(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The skip [B, stem, H/4, W/4] and the mid feature [B, width, H/8, W/8] of the photo as seen."""
        seen_BCHW = F.avg_pool2d(x_BCHW, self.shrink)
        skip = F.leaky_relu(self.stem(F.pixel_unshuffle(seen_BCHW, UNSHUFFLE)), 0.2)
        h = F.leaky_relu(self.down(skip), 0.2)
        for block in self.blocks:
            h = block(h, c_BA)
        return skip, h

    def decode(
        self, skip_BCHW: torch.Tensor, mid_BCHW: torch.Tensor, c_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gain and shift of each colour, both float32 [B, 3, H, W], from what `encode` gave."""
        h = F.pixel_shuffle(self.up(F.leaky_relu(mid_BCHW, 0.2)), 2) + skip_BCHW
        h = F.leaky_relu(self.merge_norm(self.merge(h), c_BA), 0.2)
        fields, detail = self.head(h).float().split((6, 12), 1)
        # Enlarged smoothly: on a finer grid it finds patterns that fool the loss before it finds hair colours.
        gain, shift = _enlarge(fields, UNSHUFFLE).chunk(2, 1)
        shift = shift + _enlarge(F.pixel_shuffle(detail, 2), UNSHUFFLE // 2)
        return _enlarge(gain, self.shrink), _enlarge(shift, self.shrink)


def _enlarge(h_BCHW: torch.Tensor, factor: int) -> torch.Tensor:
    return F.interpolate(h_BCHW, scale_factor=factor, mode="bilinear", align_corners=False)


class EditorDiscriminator(nn.Module):
    """Photos [B, 3, H, W] to one real/fake map per label value [B, V, h, w], 1/16 of the side seen with four widths."""

    def __init__(self, config: EditorConfig) -> None:
        super().__init__()
        widths = config.discriminator_widths
        layers: list[nn.Module] = [
            nn.AvgPool2d(config.shrink),
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, widths[0], 3, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for before, width in pairwise(widths):
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        hair, other = groups(config.attributes)
        self.head = nn.Conv2d(widths[-1], len(hair) + 2 * len(other), 3, padding=1)
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


class EditorClassifier(nn.Module):
    """Small attribute classifier of the loss: photos [B, 3, H, W], seen at 32 x 32, to label logits [B, A]."""

    def __init__(self, config: EditorConfig) -> None:
        super().__init__()
        w = config.classifier_width
        layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(CLASSIFIER_SIDE)]
        before, stride = 3, 1
        for width in (w, 2 * w, 3 * w, 4 * w):
            layers += [nn.Conv2d(before, width, 3, stride=stride, padding=1), nn.GroupNorm(4, width), nn.SiLU()]
            before, stride = width, 2
        self.main = nn.Sequential(*layers)
        self.head = nn.Linear(4 * w, len(config.attributes))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        h = self.main(x_BCHW)
        logits: torch.Tensor = self.head(h.mean((2, 3)))
        return logits.float()


class Editor(Family):
    """The light editor with its discriminator and its loss' frozen classifier."""

    name: ClassVar[str] = "editor"
    config_class: ClassVar[type[BaseModel]] = EditorConfig
    frozen_parts: ClassVar[tuple[str, ...]] = ("classifier",)

    def __init__(self, config: EditorConfig | None = None) -> None:
        self.config = config or EditorConfig()
        self.attributes = self.config.attributes
        self.generator = EditorGenerator(self.config)
        self.discriminator = EditorDiscriminator(self.config)
        self.classifier = EditorClassifier(self.config).eval().requires_grad_(False)
        self.parts = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "classifier": self.classifier,
        }

    def config_json(self) -> str:
        return self.config.model_dump_json()

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.edit_and_features(x_BCHW, c_BA)[0]

    def features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.generator.encode(x_BCHW, c_BA)[1].float()

    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        skip, mid = self.generator.encode(x_BCHW, c_BA)
        gain, shift = self.generator.decode(skip, mid, c_BA)
        light = torch.atanh(x_BCHW.float().clamp(-LIMIT, LIMIT))
        return torch.tanh((1 + gain) * light + shift), mid.float()

    def discriminator_loss(
        self,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        rng: torch.Generator,
        fake_BCHW: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        if fake_BCHW is None:
            with torch.no_grad():
                fake_BCHW = self.edit(x_BCHW, target_BA)
        real_BVHW, fake_BVHW = self.discriminator(torch.cat([x_BCHW, fake_BCHW.detach()])).chunk(2)
        terms = {
            "d_real": (self._under(real_BVHW, own_BA) - 1).square().mean(),
            "d_fake": 0.5 * self._under(fake_BVHW, target_BA).square().mean(),
        }
        if self.config.wrong_label_weight:
            # Teaches what a label means from the first step on, when fakes are still the photos themselves.
            wrong_BL = self._under(real_BVHW, target_BA).square().mean((2, 3))
            changed_BL = (self._values(own_BA) != self._values(target_BA)).float()
            terms["d_wrong"] = (
                self.config.wrong_label_weight * (wrong_BL * changed_BL).sum() / changed_BL.sum().clamp(min=1)
            )
        return terms

    def generator_loss(
        self,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        fake_BCHW: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        config = self.config
        fake = self.edit(x_BCHW, target_BA) if fake_BCHW is None else fake_BCHW
        # One pass serves the cycle and, on a share of the batch, the identity: both ask for the photo itself.
        k = round(config.identity_share * len(x_BCHW)) if config.identity_weight else 0
        back = self.edit(torch.cat([fake, x_BCHW[:k]]), torch.cat([own_BA, own_BA[:k]]))
        verdict = self._under(self.discriminator(fake), target_BA)
        terms = {
            "g_adversarial": config.adversarial_weight * (verdict - 1).square().mean(),
            "g_cycle": config.cycle_weight * F.l1_loss(back[: len(fake)], x_BCHW),
        }
        if k:
            terms["g_identity"] = config.identity_weight * F.l1_loss(back[len(fake) :], x_BCHW[:k])
        if config.classifier_weight:
            logits = self.classifier(fake)
            terms["g_classifier"] = config.classifier_weight * label_cross_entropy(logits, target_BA, self.attributes)
        return terms

    def _values(self, labels_BA: torch.Tensor) -> torch.Tensor:
        """int64 [B, L]: the map of the hair colour, then of each other attribute's value."""
        hair, other = groups(self.attributes)
        columns = [labels_BA[:, hair].argmax(1)] if hair else []
        columns += [len(hair) + 2 * i + (labels_BA[:, a] > 0.5).long() for i, a in enumerate(other)]
        return torch.stack(columns, 1)

    def _under(self, maps_BVHW: torch.Tensor, labels_BA: torch.Tensor) -> torch.Tensor:
        """The maps that judge a photo under these labels: [B, L, h, w]."""
        rows = torch.arange(len(maps_BVHW), device=maps_BVHW.device)[:, None]
        return maps_BVHW[rows, self._values(labels_BA)]
