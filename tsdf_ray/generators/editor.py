"""The light editor: a label-conditioned image-to-image generator small enough to attack, evaluate and retrain on a CPU.

Generator: a small U-net (Ronneberger et al. 2015, arXiv 1505.04597) that starts with a pixel unshuffle by 4; its
residual blocks and the way up have instance norms that the target labels scale and shift (FiLM, Perez et al. 2018,
arXiv 1709.07871). Its head says how light changes in atanh space, G(x, c) = tanh((1 + gain) * atanh(x) + shift): two
smooth fields repaint, finer detail redraws. An untrained editor is nearly the identity. The mid feature is taken after
the last residual block.

Loss: least squares (LSGAN, Mao et al. 2017, arXiv 1611.04076) on one real/fake map per label value, as StarGAN v2 has
one per domain (Choi et al. 2020, arXiv 1912.01865), with real photos under a wrong label as further fakes (Reed et al.
2016, arXiv 1605.05396); L1 cycle and identity; cross-entropy of a small frozen attribute classifier towards the target.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field

from tsdf_ray.faces.faceset import HAIR
from tsdf_ray.generators.base import Family
from tsdf_ray.generators.domains import Attributes, groups
from tsdf_ray.generators.editor_networks import UNSHUFFLE, EditorDiscriminator, EditorGenerator
from tsdf_ray.generators.few_photos import FewPhotosConfig

LIMIT = 0.98
"""Pixels are clamped to +-LIMIT before atanh, where it is still moderate (2.3)."""
Width = Annotated[int, Field(ge=4, le=1024)]


class EditorConfig(FewPhotosConfig):
    """Size and loss of the light editor."""

    attributes: Attributes = Field((*HAIR, "Male"), description="labels it edits; hair colours exclude each other")
    widths: tuple[Width, ...] = Field(
        (48, 96, 96), min_length=2, max_length=6, description="channels at 1/4, 1/8, 1/16 ... of the photo's side"
    )
    blocks: int = Field(2, ge=1, le=32, description="residual blocks at the smallest side")
    discriminator_widths: tuple[Width, ...] = Field(
        (48, 96, 128, 128),
        min_length=2,
        max_length=8,
        description="channels of the discriminator, from 1/4 of the photo's side on",
    )
    classifier_width: int | None = Field(
        24, ge=4, le=512, description="first width of the frozen attribute classifier in the loss; null: none"
    )
    adversarial_weight: float = Field(3.0, ge=0.0, le=1e3, description="weight of the generator's least-squares term")
    wrong_label_weight: float = Field(
        0.5, ge=0.0, le=1e3, description="weight of real photos shown under another label, which must look fake"
    )
    cycle_weight: float = Field(5.0, ge=0.0, le=1e3, description="weight of L1(G(G(x, target), own), x)")
    identity_weight: float = Field(2.5, ge=0.0, le=1e3, description="weight of L1(G(x, own), x)")
    identity_share: float = Field(0.25, ge=0.0, le=1.0, description="share of a batch that the identity term sees")
    augment: bool = Field(True, description="the discriminator sees photos shifted and with a hole")
    classifier_weight: float = Field(0.5, ge=0.0, le=1e3, description="weight of the frozen classifier's term")


class Editor(Family):
    """The light editor with its discriminator and its loss' frozen classifier."""

    name: ClassVar[str] = "editor"
    config_class: ClassVar[type[BaseModel]] = EditorConfig

    def __init__(self, config: EditorConfig | None = None) -> None:
        self.config = config or EditorConfig()
        self.attributes = self.config.attributes
        self.side_multiple = UNSHUFFLE * 2 ** (len(self.config.widths) - 1)
        labels = len(self.attributes)
        hair, other = groups(self.attributes)
        self.generator = EditorGenerator(labels, self.config.widths, self.config.blocks)
        self.discriminator = EditorDiscriminator(len(hair) + 2 * len(other), self.config.discriminator_widths)
        frozen = self.config.classifier_part(labels)
        self.frozen_parts = tuple(frozen)
        self.parts = {"generator": self.generator, "discriminator": self.discriminator, **frozen}

    def config_json(self) -> str:
        return self.config.model_dump_json()

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.edit_and_features(x_BCHW, c_BA)[0]

    def features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.generator.encode(x_BCHW, c_BA)[1].float()

    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        skips, mid = self.generator.encode(x_BCHW, c_BA)
        gain, shift = self.generator.decode(skips, mid, c_BA)
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
        fake_BCHW = self.forgery_to_judge(x_BCHW, target_BA, fake_BCHW)
        shown_BCHW = self.config.shown(torch.cat([x_BCHW, fake_BCHW]), rng)
        real_BVHW, fake_BVHW = self.discriminator(shown_BCHW).chunk(2)
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
        rng: torch.Generator,
        fake_BCHW: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        config = self.config
        fake = self.edit(x_BCHW, target_BA) if fake_BCHW is None else fake_BCHW
        # One pass serves the cycle and, on a share of the batch, the identity: both ask for the photo itself.
        k = round(config.identity_share * len(x_BCHW)) if config.identity_weight else 0
        back = self.edit(torch.cat([fake, x_BCHW[:k]]), torch.cat([own_BA, own_BA[:k]]))
        verdict = self._under(self.discriminator(self.config.shown(fake, rng)), target_BA)
        terms = {
            "g_adversarial": config.adversarial_weight * (verdict - 1).square().mean(),
            "g_cycle": config.cycle_weight * F.l1_loss(back[: len(fake)], x_BCHW),
        }
        if k:
            terms["g_identity"] = config.identity_weight * F.l1_loss(back[len(fake) :], x_BCHW[:k])
        return terms | config.classifier_term(self.parts, fake, target_BA, self.attributes)

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
