"""HiSD (Li et al. 2021, arXiv 2103.01456): hierarchical styles, one translator per tag (bangs, glasses, hair colour).

A tag is a choice: with or without (one label), or one of several labels. Its style comes from a latent by the tag's
mapper, or from a reference photo by the extractor. For the `Family` contract the labels select each tag's choice, and
the style is fixed: of a latent drawn from `style_seed`, or of a reference photo (`with_reference`). The photo's code
goes through the translators of the tags in `edited`, one after the other, as in the published multi-tag inference;
METHOD's protocol is `edited=("Eyeglasses",)`. The last layer is not bounded: an edit may leave [-1, 1] a little. The
mid feature is the encoder's output, 256 x 64 x 64 at official size.

Loss (eq. 1-5): L1 of three reconstructions and of the style; hinge with an R1 penalty on pairs of photo and style (the
published ALI form). One tag per photo is trained, the one whose label the target changes, with fresh latents. The
discriminator's tag-irrelevant conditions (section 3.4) are the photo's labels of the other tags: the published ones
(Male, Young) are none that the family edits, so they are not known here.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from tsdf_ray.errors import UserError
from tsdf_ray.faces.faceset import HAIR, to_images, to_pixels
from tsdf_ray.generators.base import Family
from tsdf_ray.generators.domains import Attributes
from tsdf_ray.generators.few_photos import IDENTITY_SHARE, FewPhotosConfig
from tsdf_ray.generators.hisd_loss import Batch, discriminator_terms, generator_terms
from tsdf_ray.generators.hisd_networks import HiSDDiscriminator, HiSDGenerator
from tsdf_ray.randomness import torch_rng

Width = Annotated[int, Field(ge=4, le=4096)]
Widths = Annotated[tuple[Width, ...], Field(min_length=2, max_length=10)]


class Tag(BaseModel):
    """One property of a photo and its choices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="name of the tag")
    labels: Attributes = Field(description="one label: with or without it; several: exactly one of them")

    @property
    def choices(self) -> tuple[str, ...]:
        """Names of the choices in the published order: with, without; or the labels."""
        return self.labels if len(self.labels) > 1 else (self.labels[0], f"no_{self.labels[0]}")


class HiSDConfig(FewPhotosConfig):
    """Size, tags and loss of HiSD; the defaults are the official ones (`celeba-hq_256`)."""

    tags: tuple[Tag, ...] = Field(
        (
            Tag(name="Bangs", labels=("Bangs",)),
            Tag(name="Eyeglasses", labels=("Eyeglasses",)),
            Tag(name="HairColor", labels=HAIR),
        ),
        min_length=1,
        description="tags the network has, in its order",
    )
    edited: tuple[str, ...] | None = Field(
        None, min_length=1, description="tags whose labels the family edits, of those it has; default: all"
    )
    style_seed: int = Field(0, ge=0, description="seed of the fixed latents that give the styles")
    references: tuple[str, ...] = Field(
        (), description="choices (`Eyeglasses`, `no_Eyeglasses`) whose style a reference photo gives"
    )
    image_size: int = Field(256, ge=16, le=1024, description="side of the reference photos, in pixels")
    widths: Widths = Field((64, 128, 256), description="channels of the encoder; the decoder mirrors them")
    translator_widths: Widths = Field((64,) * 8, description="channels of a tag's translator")
    extractor_widths: Widths = Field((32, 64, 128, 256, 512, 512, 512), description="channels of the extractor")
    mapper_widths: Widths = Field((256, 256, 256), description="units of a mapper's shared part")
    choice_widths: Widths = Field((256, 256, 256), description="units of a mapper's part for one choice")
    style: int = Field(256, ge=1, le=4096, description="length of a style (published name: style_dim)")
    noise: int = Field(32, ge=1, le=4096, description="length of a latent (published name: noise_dim)")
    discriminator_widths: Widths = Field((32, 64, 128, 256, 512, 512, 512), description="channels of the discriminator")
    start_scale: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="untrained, the last layers of decoder, extractor and mappers are scaled by it; 1 as published, "
        "where photos start ten times too bright and a short training spends itself on fading them",
    )
    adversarial_weight: float = Field(1.0, ge=0.0, le=1e3, description="weight of the generator's adversarial term")
    style_weight: float = Field(1.0, ge=0.0, le=1e3, description="weight of L1 between a style and the one found again")
    reconstruction_weight: float = Field(1.0, ge=0.0, le=1e3, description="weight of the three L1 reconstructions")
    penalty_weight: float = Field(1.0, ge=0.0, le=1e3, description="weight of the gradient penalty (R1)")
    identity_weight: float = Field(
        0.0, ge=0.0, le=1e3, description="weight of L1(G(x, own), x), seen by a quarter of a batch; not published"
    )

    @model_validator(mode="after")
    def _fits(self) -> HiSDConfig:
        names = [tag.name for tag in self.tags]
        labels = [label for tag in self.tags for label in tag.labels]
        for what, found in (("tag", names), ("label", labels), ("edited tag", list(self.edited or ()))):
            if len(set(found)) != len(found):
                raise ValueError(f"each {what} may be named once")
        for name in self.edited or ():
            if name not in names:
                raise ValueError(f"edited: no tag {name!r}; tags: {', '.join(names)}")
        choices = [choice for tag in self.tags for choice in tag.choices]
        for name in self.references:
            if name not in choices:
                raise ValueError(f"references: no choice {name!r}; choices: {', '.join(choices)}")
        if self.mapper_widths[-1] != self.choice_widths[0]:
            raise ValueError(
                f"choice_widths must start with the last of mapper_widths, {self.mapper_widths[-1]}, "
                f"not with {self.choice_widths[0]}"
            )
        return self

    def active(self) -> list[tuple[int, Tag, slice]]:
        """The edited tags in the network's order: index, tag, and the columns of its labels in a label vector."""
        found: list[tuple[int, Tag, slice]] = []
        column = 0
        for i, tag in enumerate(self.tags):
            if self.edited is None or tag.name in self.edited:
                found.append((i, tag, slice(column, column + len(tag.labels))))
                column += len(tag.labels)
        return found


class _References(nn.Module):
    """Reference photos uint8 [3, S, S], by choice: buffers, so that they travel and are saved with the weights."""

    def __init__(self, names: tuple[str, ...], size: int) -> None:
        super().__init__()
        for name in names:
            self.register_buffer(name, torch.zeros(3, size, size, dtype=torch.uint8))


class HiSD(Family):
    """HiSD with its discriminator, its reference photos and its full loss."""

    name: ClassVar[str] = "hisd"
    config_class: ClassVar[type[BaseModel]] = HiSDConfig
    shares_fake: ClassVar[bool] = False
    rates: ClassVar[dict[str, float]] = {"mappers.": 0.01}

    def __init__(self, config: HiSDConfig | None = None) -> None:
        self.config = config = config or HiSDConfig()
        self._active = config.active()
        self.side_multiple = 2 ** (len(config.widths) - 1)
        self.attributes = tuple(label for _, tag, _ in self._active for label in tag.labels)
        choices = [len(tag.choices) for tag in config.tags]
        self.generator = HiSDGenerator(
            config.widths,
            config.translator_widths,
            config.extractor_widths,
            (config.mapper_widths, config.choice_widths),
            choices,
            style=config.style,
            noise=config.noise,
        )
        self.generator.scale_last(config.start_scale)
        own = {i: columns.stop - columns.start for i, _, columns in self._active}
        conditions = [len(self.attributes) - own.get(i, 0) for i in range(len(choices))]
        self.discriminator = HiSDDiscriminator(config.discriminator_widths, config.style, choices, conditions)
        self.references = _References(config.references, config.image_size)
        frozen = {"references": self.references, **config.classifier_part(len(self.attributes))}
        self.frozen_parts = tuple(frozen)
        self.parts = {"generator": self.generator, "discriminator": self.discriminator, **frozen}

    def config_json(self) -> str:
        return self.config.model_dump_json()

    def with_reference(self, choice: str, photo_CHW: torch.Tensor) -> HiSD:
        """A copy whose style of `choice` is that of a reference photo [3, S, S] in [-1, 1], kept on the 8-bit grid.

        Raises UserError: unknown choice, or a photo of another size than `image_size`.
        """
        side = self.config.image_size
        if photo_CHW.shape != (3, side, side):
            raise UserError(f"hisd: reference of shape {tuple(photo_CHW.shape)}, expected (3, {side}, {side})")
        known = [name for tag in self.config.tags for name in tag.choices]
        if choice not in known:
            raise UserError(f"hisd: no choice {choice!r}; choices: {', '.join(known)}")
        names = tuple(dict.fromkeys([*self.config.references, choice]))
        with torch.random.fork_rng(devices=[]):  # fresh weights that are overwritten must not cost global draws
            copy = HiSD(self.config.model_copy(update={"references": names}))
        copy.load(self.tensors() | {f"references.{choice}": to_pixels(photo_CHW).cpu().numpy()})
        return copy

    def style_of(self, tag: int, choice: int) -> torch.Tensor:
        """The fixed style [style] of a choice, from its reference photo or its latent, by the current weights."""
        name = self.config.tags[tag].choices[choice]
        if name in self.config.references:
            photo_1CHW = to_images(self.references.get_buffer(name))[None]
            return self.generator.extract(photo_1CHW)[0, tag]
        z_1Z = torch.randn(1, self.config.noise, generator=torch_rng(self.config.style_seed, "hisd", name))
        device = next(self.generator.parameters()).device
        return self.generator.map(z_1Z.to(device), tag)[0, choice]

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.edit_and_features(x_BCHW, c_BA)[0]

    def features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.generator.encode(x_BCHW).float()

    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mid = code = self.generator.encode(x_BCHW)
        for i, tag, columns in self._active:
            choice_B, known_B = _choice(c_BA[:, columns])
            styles_JS = torch.stack([self.style_of(i, j) for j in range(len(tag.choices))])
            moved = self.generator.translate(code, styles_JS[choice_B], i)
            code = torch.where(known_B[:, None, None, None], moved, code)
        return self.generator.decode(code).float(), mid.float()

    def discriminator_loss(
        self,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        rng: torch.Generator,
        fake_BCHW: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        terms = discriminator_terms(self.generator, self.discriminator, self._batch(x_BCHW, own_BA, target_BA, rng))
        terms["penalty"] = self.config.penalty_weight * terms["penalty"]
        return {f"d_{name}": value for name, value in terms.items()}

    def generator_loss(
        self,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        rng: torch.Generator,
        fake_BCHW: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        config = self.config
        weights = {
            "adversarial": config.adversarial_weight,
            "style": config.style_weight,
            "reconstruction": config.reconstruction_weight,
        }
        batch = self._batch(x_BCHW, own_BA, target_BA, rng)
        terms, target_BCHW = generator_terms(self.generator, self.discriminator, batch)
        weighted = {f"g_{name}": weights[name] * value for name, value in terms.items()}
        k = round(IDENTITY_SHARE * len(x_BCHW)) if config.identity_weight else 0
        if k:
            back = self.edit(x_BCHW[:k], own_BA[:k])
            weighted["g_identity"] = config.identity_weight * F.l1_loss(back, x_BCHW[:k])
        return weighted | config.classifier_term(self.parts, target_BCHW, target_BA, self.attributes)

    def _batch(
        self, x_BCHW: torch.Tensor, own_BA: torch.Tensor, target_BA: torch.Tensor, rng: torch.Generator
    ) -> Batch:
        owns = torch.stack([_choice(own_BA[:, columns])[0] for _, _, columns in self._active])
        targets = torch.stack([_choice(target_BA[:, columns])[0] for _, _, columns in self._active])
        rows = torch.arange(len(x_BCHW), device=x_BCHW.device)
        # The first tag that changes (argmax finds the first); where none does, the first one is trained to stay.
        slot_B = (owns != targets).int().argmax(0)
        conditions = {
            i: torch.cat([own_BA[:, : columns.start], own_BA[:, columns.stop :]], 1) for i, _, columns in self._active
        }
        return Batch(
            x_BCHW,
            torch.tensor([i for i, _, _ in self._active], device=x_BCHW.device)[slot_B],
            owns[slot_B, rows],
            targets[slot_B, rows],
            torch.randn(len(x_BCHW), self.config.noise, generator=rng).to(x_BCHW.device),
            conditions,
            lambda shown_BCHW: self.config.shown(shown_BCHW, rng),
        )


def _choice(c_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 [B], the choice that a tag's labels name, and bool [B], whether they name one (no hair colour: none)."""
    if c_BL.shape[1] == 1:
        return (c_BL[:, 0] < 0.5).long(), torch.ones_like(c_BL[:, 0], dtype=torch.bool)
    return c_BL.argmax(1), c_BL.amax(1) > 0.5
