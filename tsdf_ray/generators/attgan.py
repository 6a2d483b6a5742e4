"""AttGAN (He et al. 2019, arXiv 1711.10678), with the tensor names of the published PyTorch version.

The photo is encoded without the labels; the decoder gets them beside the deepest code (and, with `inject_layers`,
further up), and `shortcut_layers` of the encoder's codes. Labels are 0 and 1 outside, -strength and +strength inside.
Batch norm in the generator: batch statistics while training, running ones in evaluation mode; instance norm in the
discriminator. The mid feature is the deepest code: 1024 x 8 x 8 at official size.

Loss: wgan-gp; mean binary cross-entropy of the labels (weight 10 for the generator, 1 for the discriminator); L1
reconstruction under the photo's own labels (weight 100).
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, model_validator
from torch import nn

from tsdf_ray.errors import UserError
from tsdf_ray.generators.base import Family
from tsdf_ray.generators.domains import Attributes
from tsdf_ray.generators.few_photos import FewPhotosConfig
from tsdf_ray.generators.layout import with_planes
from tsdf_ray.generators.stargan import gradient_penalty


class AttGANConfig(FewPhotosConfig):
    """Size and loss of AttGAN; the defaults are the official ones for 256 px (`256_shortcut1_inject0_none`)."""

    attributes: Attributes = Field(
        (
            "Bald",
            "Bangs",
            "Black_Hair",
            "Blond_Hair",
            "Brown_Hair",
            "Bushy_Eyebrows",
            "Eyeglasses",
            "Male",
            "Mouth_Slightly_Open",
            "Mustache",
            "No_Beard",
            "Pale_Skin",
            "Young",
        ),
        description="labels it edits",
    )
    strength: float = Field(0.5, gt=0.0, le=2.0, description="a label of 1 enters as +strength, of 0 as -strength")
    width: int = Field(64, ge=4, le=512, description="channels of the first layer, doubled by each further one")
    widest: int = Field(1024, ge=4, le=8192, description="most channels of a layer")
    layers: int = Field(5, ge=2, le=8, description="stride-2 layers of the encoder, and of the decoder")
    shortcut_layers: int = Field(1, ge=0, le=7, description="decoder layers that are followed by an encoder's code")
    inject_layers: int = Field(0, ge=0, le=7, description="decoder layers that are followed by the labels again")
    image_size: int = Field(256, ge=16, le=1024, description="side of the photos the discriminator is made for")
    discriminator_width: int = Field(64, ge=4, le=512, description="channels of the discriminator's first layer")
    discriminator_layers: int = Field(5, ge=1, le=8, description="stride-2 layers of the discriminator")
    hidden: int = Field(1024, ge=4, le=8192, description="units of the discriminator's hidden layers")
    adversarial_weight: float = Field(1.0, ge=0.0, le=1e3, description="weight of the adversarial terms")
    classification_weight: float = Field(10.0, ge=0.0, le=1e3, description="weight of the generator's label term")
    discriminator_classification_weight: float = Field(
        1.0, ge=0.0, le=1e3, description="weight of the discriminator's label term"
    )
    reconstruction_weight: float = Field(100.0, ge=0.0, le=1e3, description="weight of L1(G(x, own), x)")
    penalty_weight: float = Field(10.0, ge=0.0, le=1e3, description="weight of the gradient penalty")

    @model_validator(mode="after")
    def _fits(self) -> AttGANConfig:
        # The discriminator's instance norm needs more than one pixel.
        if self.image_size % 2**self.discriminator_layers or self.image_size < 2 ** (self.discriminator_layers + 1):
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of 2^discriminator_layers = "
                f"{2**self.discriminator_layers}, at least twice as large; lower discriminator_layers"
            )
        for name in ("shortcut_layers", "inject_layers"):
            if getattr(self, name) >= self.layers:
                raise ValueError(f"{name} {getattr(self, name)} must be less than layers {self.layers}")
        return self

    def widths(self, first: int, layers: int) -> list[int]:
        """Channels after each of `layers` layers."""
        return [min(first * 2**i, self.widest) for i in range(layers)]


class _Block(nn.Module):
    """Layers in a row, under the published name."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(h)
        return out


def _down(before: int, after: int, norm: nn.Module) -> _Block:
    # The published slope is PyTorch's own default, not the paper's 0.2.
    return _Block(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False), norm, nn.LeakyReLU(0.01))


class AttGANGenerator(nn.Module):
    """Photos [B, 3, H, W] (H, W multiples of 2^layers) and inner labels [B, A] to photos in [-1, 1]."""

    def __init__(self, config: AttGANConfig) -> None:
        super().__init__()
        self.shortcut_layers, self.inject_layers = config.shortcut_layers, config.inject_layers
        labels, codes = len(config.attributes), config.widths(config.width, config.layers)
        pairs = zip([3, *codes], codes, strict=False)
        self.enc_layers = nn.ModuleList(_down(before, after, nn.BatchNorm2d(after)) for before, after in pairs)
        ups: list[nn.Module] = []
        before = codes[-1] + labels
        for i in range(config.layers - 1):
            after = codes[-1 - i]
            up = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
            ups.append(_Block(up, nn.BatchNorm2d(after), nn.ReLU()))
            shortcut = codes[-2 - i] if i < config.shortcut_layers else 0
            before = after + shortcut + (labels if i < config.inject_layers else 0)
        ups.append(_Block(nn.ConvTranspose2d(before, 3, 4, stride=2, padding=1), nn.Tanh()))
        self.dec_layers = nn.ModuleList(ups)

    def encode(self, x_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """The codes, finest first; the last is the mid feature [B, widths[-1], H/2^layers, W/2^layers]."""
        codes: list[torch.Tensor] = []
        h = x_BCHW
        for layer in self.enc_layers:
            h = layer(h)
            codes.append(h)
        return codes

    def decode(self, codes: list[torch.Tensor], inner_BA: torch.Tensor) -> torch.Tensor:
        """The photo [B, 3, H, W] from the codes and the inner labels (+-strength)."""
        h = with_planes(codes[-1], inner_BA)
        for i, layer in enumerate(self.dec_layers):
            h = layer(h)
            if i < self.shortcut_layers:
                h = torch.cat([h, codes[-2 - i]], 1)
            if i < self.inject_layers:
                h = with_planes(h, inner_BA)
        return h


class AttGANDiscriminator(nn.Module):
    """Photos [B, 3, S, S] to a critic's score [B, 1] and label logits [B, A], S = image_size."""

    def __init__(self, config: AttGANConfig) -> None:
        super().__init__()
        widths = config.widths(config.discriminator_width, config.discriminator_layers)
        pairs = zip([3, *widths], widths, strict=False)
        self.conv = nn.Sequential(
            *(_down(before, after, nn.InstanceNorm2d(after, affine=True)) for before, after in pairs)
        )
        inputs = widths[-1] * (config.image_size // 2**config.discriminator_layers) ** 2
        self.fc_adv = self._head(inputs, config.hidden, 1)
        self.fc_cls = self._head(inputs, config.hidden, len(config.attributes))

    @staticmethod
    def _head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(_Block(nn.Linear(inputs, hidden), nn.ReLU()), _Block(nn.Linear(hidden, outputs)))

    def forward(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.conv(x_BCHW).flatten(1)
        return self.fc_adv(h).float(), self.fc_cls(h).float()


class AttGAN(Family):
    """AttGAN with its discriminator and its full loss."""

    name: ClassVar[str] = "attgan"
    config_class: ClassVar[type[BaseModel]] = AttGANConfig

    def __init__(self, config: AttGANConfig | None = None) -> None:
        self.config = config or AttGANConfig()
        self.attributes = self.config.attributes
        self.side_multiple = 2**self.config.layers
        self.generator = AttGANGenerator(self.config)
        self.discriminator = AttGANDiscriminator(self.config)
        frozen = self.config.classifier_part(len(self.attributes))
        self.frozen_parts = tuple(frozen)
        self.parts = {"generator": self.generator, "discriminator": self.discriminator, **frozen}

    def check_training_side(self, side: int, key: str) -> None:
        super().check_training_side(side, key)
        if side != self.config.image_size:
            raise UserError(
                f"{key}: the discriminator of {self.name} can be trained with {self.config.image_size} px photos alone "
                f"here, not with {side}"
            )

    def config_json(self) -> str:
        return self.config.model_dump_json()

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.edit_and_features(x_BCHW, c_BA)[0]

    def features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.generator.encode(x_BCHW)[-1].float()

    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = self.generator.encode(x_BCHW)
        inner_BA = (2 * c_BA - 1) * self.config.strength
        return self.generator.decode(codes, inner_BA).float(), codes[-1].float()

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
        label_loss = F.binary_cross_entropy_with_logits(labels, own_BA)
        slope = gradient_penalty(lambda between: self.discriminator(between)[0], x_BCHW, fake_BCHW, rng)
        return {
            "d_real": -config.adversarial_weight * real.mean(),
            "d_fake": config.adversarial_weight * fake.mean(),
            "d_penalty": config.penalty_weight * slope,
            "d_classification": config.discriminator_classification_weight * label_loss,
        }

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
        label_loss = F.binary_cross_entropy_with_logits(labels, target_BA)
        terms = {
            "g_adversarial": -config.adversarial_weight * verdict.mean(),
            "g_classification": config.classification_weight * label_loss,
            "g_reconstruction": config.reconstruction_weight * F.l1_loss(self.edit(x_BCHW, own_BA), x_BCHW),
        }
        return terms | config.classifier_term(self.parts, fake, target_BA, self.attributes)
