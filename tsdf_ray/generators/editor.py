"""The light editor: a label-conditioned image-to-image generator small enough to attack, evaluate and retrain on a CPU.

Generator: pixel unshuffle by 4, one stride-2 down, residual blocks whose instance norms are scaled and shifted by the
target labels (FiLM, Perez et al. 2018, arXiv 1709.07871), one up with a skip, pixel shuffle. Its head is a residual in
atanh space: G(x, c) = tanh(atanh(x) + r(x, c)), so that an untrained editor is the identity and a trained one repaints
only what the label asks for. The mid feature is taken after the last residual block.

Loss: one real/fake patch map per domain, that is per label combination (StarGAN v2, Choi et al. 2020, arXiv
1912.01865), hinge; L1 cycle and identity; cross-entropy of a small frozen attribute classifier towards the target.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

from tsdf_ray.faces.faceset import HAIR
from tsdf_ray.generators.base import Family
from tsdf_ray.generators.domains import domain_count, domain_index, label_cross_entropy

UNSHUFFLE = 4
LIMIT = 0.98
"""Pixels are clamped to +-LIMIT before atanh, where it is still moderate (2.3)."""


class EditorConfig(BaseModel):
    """Size and loss of the light editor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attributes: tuple[str, ...] = Field(
        (*HAIR, "Male"), min_length=1, description="labels it edits; hair colours exclude each other"
    )
    stem_width: int = Field(48, ge=4, le=512, description="channels at a quarter of the photo's side")
    width: int = Field(64, ge=4, le=1024, description="channels at an eighth of the photo's side (bottleneck)")
    blocks: int = Field(4, ge=1, le=32, description="residual blocks at the bottleneck")
    discriminator_widths: tuple[int, ...] = Field(
        (16, 48, 64, 96), min_length=1, max_length=8, description="channels of the discriminator's stride-2 layers"
    )
    classifier_width: int = Field(32, ge=4, le=512, description="first width of the frozen attribute classifier")
    adversarial_weight: float = Field(1.0, ge=0.0, le=1e3, description="weight of the generator's hinge term")
    cycle_weight: float = Field(10.0, ge=0.0, le=1e3, description="weight of L1(G(G(x, target), own), x)")
    identity_weight: float = Field(5.0, ge=0.0, le=1e3, description="weight of L1(G(x, own), x)")
    identity_share: float = Field(0.25, ge=0.0, le=1.0, description="share of a batch that the identity term sees")
    classifier_weight: float = Field(0.2, ge=0.0, le=1e3, description="weight of the frozen classifier's term")
    r1_weight: float = Field(
        0.0, ge=0.0, le=1e3, description="gradient penalty of the discriminator on real photos (R1); 0 leaves it out"
    )

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
        return h_BCHW + self.norm2(self.conv2(inner), c_BA)


class EditorGenerator(nn.Module):
    """Photos [B, 3, H, W] (H, W multiples of 8, from 32) and labels [B, A] to the residual in atanh space."""

    def __init__(self, config: EditorConfig) -> None:
        super().__init__()
        labels, stem, width = len(config.attributes), config.stem_width, config.width
        pixels = 3 * UNSHUFFLE**2
        self.stem = nn.Conv2d(pixels, stem, 3, padding=1, padding_mode="reflect")
        self.down = nn.Conv2d(stem, width, 4, stride=2, padding=1, padding_mode="reflect")
        self.blocks = nn.ModuleList(ResidualBlock(width, labels) for _ in range(config.blocks))
        self.up = nn.Conv2d(width, 4 * stem, 1)
        self.merge = nn.Conv2d(stem, stem, 3, padding=1, padding_mode="reflect", bias=False)
        self.merge_norm = LabelNorm(stem, labels)
        self.head = nn.Conv2d(stem, pixels, 3, padding=1, padding_mode="reflect")
        with torch.no_grad():
            self.head.weight.mul_(0.1)

    def encode(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The skip [B, stem, H/4, W/4] and the mid feature [B, width, H/8, W/8]."""
        skip = F.leaky_relu(self.stem(F.pixel_unshuffle(x_BCHW, UNSHUFFLE)), 0.2)
        h = F.leaky_relu(self.down(skip), 0.2)
        for block in self.blocks:
            h = block(h, c_BA)
        return skip, h

    def decode(self, skip_BCHW: torch.Tensor, mid_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        """The residual [B, 3, H, W] from what `encode` gave."""
        h = F.pixel_shuffle(self.up(F.leaky_relu(mid_BCHW, 0.2)), 2) + skip_BCHW
        h = F.leaky_relu(self.merge_norm(self.merge(h), c_BA), 0.2)
        return F.pixel_shuffle(self.head(h), UNSHUFFLE)


class EditorDiscriminator(nn.Module):
    """Photos [B, 3, H, W] to one real/fake map per domain [B, D, H/2^n, W/2^n] for n widths."""

    def __init__(self, config: EditorConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in config.discriminator_widths:
            layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            channels = width
        self.main = nn.Sequential(*layers, nn.Conv2d(channels, domain_count(config.attributes), 3, padding=1))

    def forward(self, x_BCHW: torch.Tensor, domain_B: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.main(x_BCHW)
        rows = torch.arange(len(maps), device=maps.device)
        return maps[rows, domain_B].float()


class EditorClassifier(nn.Module):
    """Small attribute classifier of the loss: photos [B, 3, H, W] to label logits [B, A]."""

    def __init__(self, config: EditorConfig) -> None:
        super().__init__()
        w = config.classifier_width
        self.main = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(3, w, 5, stride=2, padding=2),
            nn.GroupNorm(4, w),
            nn.SiLU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),
            nn.GroupNorm(4, 2 * w),
            nn.SiLU(),
            nn.Conv2d(2 * w, 3 * w, 3, stride=2, padding=1),
            nn.GroupNorm(4, 3 * w),
            nn.SiLU(),
            nn.Conv2d(3 * w, 4 * w, 3, padding=1),
            nn.SiLU(),
        )
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
        residual = self.generator.decode(skip, mid, c_BA).float()
        return torch.tanh(torch.atanh(x_BCHW.float().clamp(-LIMIT, LIMIT)) + residual), mid.float()

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
        own_B, target_B = domain_index(own_BA, self.attributes), domain_index(target_BA, self.attributes)
        terms: dict[str, torch.Tensor] = {}
        if self.config.r1_weight:
            x_BCHW = x_BCHW.detach().requires_grad_(True)
            real = self.discriminator(x_BCHW, own_B)
            (slope,) = torch.autograd.grad(real.mean((1, 2)).sum(), x_BCHW, create_graph=True)
            terms["d_r1"] = 0.5 * self.config.r1_weight * slope.float().square().sum((1, 2, 3)).mean()
            fake = self.discriminator(fake_BCHW.detach(), target_B)
        else:
            both = torch.cat([x_BCHW, fake_BCHW.detach()])
            real, fake = self.discriminator(both, torch.cat([own_B, target_B])).chunk(2)
        return {"d_real": F.relu(1 - real).mean(), "d_fake": F.relu(1 + fake).mean(), **terms}

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
        terms = {
            "g_adversarial": -config.adversarial_weight
            * self.discriminator(fake, domain_index(target_BA, self.attributes)).mean(),
            "g_cycle": config.cycle_weight * F.l1_loss(back[: len(fake)], x_BCHW),
        }
        if k:
            terms["g_identity"] = config.identity_weight * F.l1_loss(back[len(fake) :], x_BCHW[:k])
        if config.classifier_weight:
            logits = self.classifier(fake)
            terms["g_classifier"] = config.classifier_weight * label_cross_entropy(logits, target_BA, self.attributes)
        return terms
