"""StarGAN (Choi et al. 2018, arXiv 1711.09020): the paper's generator family, with the published tensor names.

Labels enter as constant input channels. Adversarial loss wgan-gp (the published one) or hinge, binary cross-entropy for
the labels, L1 cycle; weights 1, 1, 10 and 10 for the gradient penalty. The mid feature is taken after the last residual
block: 4 width channels at a quarter of the photo's side (256 x 64 x 64 at official size).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, model_validator
from torch import nn

from tsdf_ray.errors import UserError
from tsdf_ray.generators.base import Family
from tsdf_ray.generators.domains import Attributes
from tsdf_ray.generators.few_photos import IDENTITY_SHARE, FewPhotosConfig
from tsdf_ray.generators.layout import instance_norm, with_planes


class StarGANConfig(FewPhotosConfig):
    """Size and loss of StarGAN; the defaults are the official ones for 256 px."""

    attributes: Attributes = Field(
        ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young"), description="labels it edits"
    )
    width: int = Field(64, ge=4, le=512, description="channels of the first layer (published name: conv_dim)")
    blocks: int = Field(6, ge=1, le=32, description="residual blocks")
    image_size: int = Field(256, ge=16, le=1024, description="side of the photos the label head is made for, in pixels")
    discriminator_width: int = Field(64, ge=4, le=512, description="channels of the discriminator's first layer")
    discriminator_layers: int = Field(6, ge=1, le=8, description="stride-2 layers of the discriminator")
    adversarial: Literal["wgan-gp", "hinge"] = Field("wgan-gp", description="adversarial loss")
    adversarial_weight: float = Field(1.0, ge=0.0, le=1e3, description="weight of the adversarial terms")
    classification_weight: float = Field(1.0, ge=0.0, le=1e3, description="weight of the label terms")
    cycle_weight: float = Field(10.0, ge=0.0, le=1e3, description="weight of L1(G(G(x, target), own), x)")
    identity_weight: float = Field(
        0.0, ge=0.0, le=1e3, description="weight of L1(G(x, own), x), seen by a quarter of a batch; not published"
    )
    penalty_weight: float = Field(10.0, ge=0.0, le=1e3, description="weight of the gradient penalty (wgan-gp)")

    @model_validator(mode="after")
    def _divides(self) -> StarGANConfig:
        if self.image_size % 2**self.discriminator_layers:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of 2^discriminator_layers = "
                f"{2**self.discriminator_layers}; lower discriminator_layers"
            )
        return self


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm with the published parameters and buffers, always normalising by the photo's own statistics.

    The published layers track running statistics, but the published code never leaves training mode, so they are never
    used; they are kept here only so that the tensor names agree.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True, track_running_stats=True)

    def forward(self, h_BCHW: torch.Tensor) -> torch.Tensor:
        return instance_norm(h_BCHW, self.weight, self.bias, self.eps)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with instance norms, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            InstanceNorm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            InstanceNorm(channels),
        )

    def forward(self, h_BCHW: torch.Tensor) -> torch.Tensor:
        inner: torch.Tensor = self.main(h_BCHW)
        return h_BCHW + inner


class LabelGenerator(nn.Module, ABC):
    """Photos [B, 3, H, W] (H, W multiples of 4) and labels [B, A] to `outputs` maps; `main` as published.

    A subclass says in `decode` what photo the maps are.
    """

    outputs: ClassVar[int]
    """Channels of the last layer."""

    def __init__(self, config: StarGANConfig) -> None:
        super().__init__()
        w = config.width
        layers: list[nn.Module] = [nn.Conv2d(3 + len(config.attributes), w, 7, padding=3, bias=False)]
        layers += [InstanceNorm(w), nn.ReLU(inplace=True)]
        for wide in (2 * w, 4 * w):
            layers += [nn.Conv2d(wide // 2, wide, 4, stride=2, padding=1, bias=False)]
            layers += [InstanceNorm(wide), nn.ReLU(inplace=True)]
        layers += [ResidualBlock(4 * w) for _ in range(config.blocks)]
        self.encoder_depth = len(layers)
        for wide in (2 * w, w):
            layers += [nn.ConvTranspose2d(2 * wide, wide, 4, stride=2, padding=1, bias=False)]
            layers += [InstanceNorm(wide), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(w, self.outputs, 7, padding=3, bias=False)]
        self.main = nn.Sequential(*layers)

    def encode(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        """The mid feature [B, 4 width, H/4, W/4]."""
        mid: torch.Tensor = self.main[: self.encoder_depth](with_planes(x_BCHW, c_BA))
        return mid

    def maps(self, mid_BCHW: torch.Tensor) -> torch.Tensor:
        """The last layer [B, outputs, H, W], without an activation, from the mid feature."""
        maps: torch.Tensor = self.main[self.encoder_depth :](mid_BCHW)
        return maps

    @abstractmethod
    def decode(self, mid_BCHW: torch.Tensor, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The photo [B, 3, H, W] from the mid feature and the photo it was made of."""


class StarGANGenerator(LabelGenerator):
    """The photo is tanh of three maps: in [-1, 1]."""

    outputs: ClassVar[int] = 3

    def decode(self, mid_BCHW: torch.Tensor, x_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.maps(mid_BCHW))


class StarGANDiscriminator(nn.Module):
    """Photos [B, 3, S, S] to a real/fake map [B, 1, S/2^n, S/2^n] and label logits [B, A], S = image_size."""

    def __init__(self, config: StarGANConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        layers: list[nn.Module] = []
        before, channels = 3, config.discriminator_width
        for _ in range(config.discriminator_layers):
            layers += [nn.Conv2d(before, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.01)]
            before, channels = channels, 2 * channels
        self.main = nn.Sequential(*layers)
        self.conv1 = nn.Conv2d(before, 1, 3, padding=1, bias=False)
        side = config.image_size // 2**config.discriminator_layers
        self.conv2 = nn.Conv2d(before, len(config.attributes), side, bias=False)

    def forward(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.main(x_BCHW)
        return self.conv1(h).float(), self.conv2(h).mean((2, 3)).float()


class StarGAN(Family):
    """StarGAN with its discriminator and its full loss."""

    name: ClassVar[str] = "stargan"
    config_class: ClassVar[type[BaseModel]] = StarGANConfig
    side_multiple = 4
    generator_class: ClassVar[type[LabelGenerator]] = StarGANGenerator

    def __init__(self, config: StarGANConfig | None = None) -> None:
        self.config = StarGANConfig() if config is None else config
        self.attributes = self.config.attributes
        self.generator = self.generator_class(self.config)
        self.discriminator = StarGANDiscriminator(self.config)
        frozen = self.config.classifier_part(len(self.attributes))
        self.frozen_parts = tuple(frozen)
        self.parts = {"generator": self.generator, "discriminator": self.discriminator, **frozen}

    def check_training_side(self, side: int, key: str) -> None:
        super().check_training_side(side, key)
        if side < self.config.image_size:
            raise UserError(
                f"{key}: {side} is less than {self.config.image_size}, the smallest side that the discriminator of "
                f"{self.name} can be trained with here"
            )

    def config_json(self) -> str:
        return self.config.model_dump_json()

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.edit_and_features(x_BCHW, c_BA)[0]

    def features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.generator.encode(x_BCHW, c_BA).float()

    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mid = self.generator.encode(x_BCHW, c_BA)
        return self.generator.decode(mid, x_BCHW).float(), mid.float()

    def discriminator_loss(
        self,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        rng: torch.Generator,
        fake_BCHW: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        config = self.config
        fake_BCHW = self.forgery_to_judge(x_BCHW, target_BA, fake_BCHW)
        x_BCHW, fake_BCHW = config.shown(torch.cat([x_BCHW, fake_BCHW]), rng).chunk(2)
        real, labels = self.discriminator(x_BCHW)
        fake, _ = self.discriminator(fake_BCHW)
        terms = {"d_classification": config.classification_weight * _label_loss(labels, own_BA)}
        if config.adversarial == "hinge":
            terms["d_real"] = config.adversarial_weight * F.relu(1 - real).mean()
            terms["d_fake"] = config.adversarial_weight * F.relu(1 + fake).mean()
            return terms
        terms["d_real"] = -config.adversarial_weight * real.mean()
        terms["d_fake"] = config.adversarial_weight * fake.mean()
        slope = gradient_penalty(lambda between: self.discriminator(between)[0], x_BCHW, fake_BCHW, rng)
        terms["d_penalty"] = config.penalty_weight * slope
        return terms

    def generator_loss(
        self,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        rng: torch.Generator,
        fake_BCHW: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        config = self.config
        fake = self.edit(x_BCHW, target_BA) if fake_BCHW is None else fake_BCHW
        verdict, labels = self.discriminator(config.shown(fake, rng))
        # One pass serves the cycle and the identity: both ask for the photo itself.
        k = round(IDENTITY_SHARE * len(fake)) if config.identity_weight else 0
        back = self.edit(torch.cat([fake, x_BCHW[:k]]), torch.cat([own_BA, own_BA[:k]]))
        terms = {
            "g_adversarial": -config.adversarial_weight * verdict.mean(),
            "g_classification": config.classification_weight * _label_loss(labels, target_BA),
            "g_cycle": config.cycle_weight * F.l1_loss(back[: len(fake)], x_BCHW),
        }
        if k:
            terms["g_identity"] = config.identity_weight * F.l1_loss(back[len(fake) :], x_BCHW[:k])
        return terms | config.classifier_term(self.parts, fake, target_BA, self.attributes)


def _label_loss(logits_BA: torch.Tensor, labels_BA: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy summed over the labels, mean over the photos (as published)."""
    return F.binary_cross_entropy_with_logits(logits_BA, labels_BA, reduction="sum") / len(logits_BA)


def gradient_penalty(
    score: Callable[[torch.Tensor], torch.Tensor],
    real_BCHW: torch.Tensor,
    fake_BCHW: torch.Tensor,
    rng: torch.Generator,
) -> torch.Tensor:
    """Scalar mean of (|slope| - 1)^2 at a random point between each real photo and its fake (wgan-gp).

    Gulrajani et al. 2017, arXiv 1704.00028, eq. 3; `score` gives any number of scores per photo, which are summed.
    """
    mix = torch.rand(len(real_BCHW), 1, 1, 1, generator=rng).to(real_BCHW.device)
    between = (mix * real_BCHW + (1 - mix) * fake_BCHW).requires_grad_(True)
    (slope,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
    length_B = slope.flatten(1).norm(dim=1)
    penalty: torch.Tensor = (length_B - 1).square().mean()
    return penalty
