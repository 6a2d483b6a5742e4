"""The loss of HiSD (Li et al. 2021, arXiv 2103.01456, eq. 1-5), for batches whose photos differ in the trained tag."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tsdf_ray.generators.hisd_networks import HiSDDiscriminator, HiSDGenerator


@dataclass(frozen=True)
class Batch:
    """Photos, and what is trained on each of them."""

    x_BCHW: torch.Tensor
    tag_B: torch.Tensor
    """int64 [B], the trained tag."""
    own_B: torch.Tensor
    """int64 [B], the photo's own choice of that tag."""
    target_B: torch.Tensor
    """int64 [B], the choice asked for."""
    z_BZ: torch.Tensor
    """Latents of the target styles."""
    conditions: Mapping[int, torch.Tensor]
    """Tag-irrelevant conditions [B, Y] by tag; Y differs between tags."""
    shown: Callable[[torch.Tensor], torch.Tensor] = lambda x_BCHW: x_BCHW
    """What the discriminator sees of photos."""


@dataclass(frozen=True)
class Passes:
    """What the generator makes of a batch: photos [B, 3, H, W], styles [B, style]."""

    own_style: torch.Tensor
    target_style: torch.Tensor
    code: torch.Tensor
    target: torch.Tensor
    found_style: torch.Tensor
    """The target style, extracted again from the translated photo."""
    cycle: torch.Tensor


def by_tag(tag_B: torch.Tensor, run: Callable[[int, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The rows of run(tag, int64 index of its photos), put back into the order of the batch."""
    where = [(tag, (tag_B == tag).nonzero()[:, 0]) for tag in sorted(set(tag_B.tolist()))]
    rows = torch.cat([run(tag, index) for tag, index in where])
    return rows[torch.cat([index for _, index in where]).argsort()]


def _translate(
    generator: HiSDGenerator, code_BCHW: torch.Tensor, style_BS: torch.Tensor, tag_B: torch.Tensor
) -> torch.Tensor:
    return by_tag(tag_B, lambda tag, b: generator.translate(code_BCHW[b], style_BS[b], tag))


def passes(generator: HiSDGenerator, batch: Batch) -> Passes:
    """The cycle-translation path: to the target choice's style, and back with the photo's own."""
    rows = torch.arange(len(batch.x_BCHW), device=batch.x_BCHW.device)
    code = generator.encode(batch.x_BCHW)
    own_style = generator.extract(batch.x_BCHW)[rows, batch.tag_B]
    target_style = by_tag(
        batch.tag_B,
        lambda tag, b: generator.map(batch.z_BZ[b], tag)[rows[: len(b)], batch.target_B[b]],
    )
    target = generator.decode(_translate(generator, code, target_style, batch.tag_B))
    found_style = generator.extract(target)[rows, batch.tag_B]
    cycle = generator.decode(_translate(generator, generator.encode(target), own_style, batch.tag_B))
    return Passes(own_style, target_style, code, target, found_style, cycle)


def scores(
    discriminator: HiSDDiscriminator,
    batch: Batch,
    x_BCHW: torch.Tensor,
    style_BS: torch.Tensor,
    choice_B: torch.Tensor,
) -> torch.Tensor:
    """Scores [B, 2] of photos with their styles under one choice each: as translated, as cycled."""
    seen_BC = discriminator.body(batch.shown(x_BCHW))

    def under_choice(tag: int, b: torch.Tensor) -> torch.Tensor:
        scores_b2J = discriminator.head(seen_BC[b], style_BS[b], batch.conditions[tag][b], tag)
        return scores_b2J[torch.arange(len(b), device=b.device), :, choice_B[b]]

    return by_tag(batch.tag_B, under_choice)


def generator_terms(
    generator: HiSDGenerator, discriminator: HiSDDiscriminator, batch: Batch
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Unweighted terms `adversarial`, `style`, `reconstruction`, and the translated photos.

    The generator lowers the score of real pairs too, by the extracted style; that style is held fixed in the other two.
    """
    made = passes(generator, batch)
    x_BCHW = batch.x_BCHW
    real_B2 = scores(discriminator, batch, x_BCHW, made.own_style, batch.own_B)
    target_B2 = scores(discriminator, batch, made.target, made.target_style.detach(), batch.target_B)
    cycle_B2 = scores(discriminator, batch, made.cycle, made.own_style.detach(), batch.own_B)
    plain = generator.decode(made.code)
    self_translated = generator.decode(_translate(generator, made.code, made.own_style, batch.tag_B))
    photos = (plain, self_translated, made.cycle)
    terms = {
        "adversarial": (real_B2.sum(1) - target_B2[:, 0] - cycle_B2[:, 1]).mean(),
        "style": F.l1_loss(made.found_style.float(), made.target_style.float()),
        "reconstruction": torch.stack([F.l1_loss(photo.float(), x_BCHW) for photo in photos]).sum(),
    }
    return terms, made.target


def discriminator_terms(
    generator: HiSDGenerator, discriminator: HiSDDiscriminator, batch: Batch
) -> dict[str, torch.Tensor]:
    """Unweighted terms `real`, `fake`, `cycle` (hinge) and `penalty` (squared slope of both scores at real photos)."""
    with torch.no_grad():
        made = passes(generator, batch)
    x_BCHW = batch.x_BCHW.detach().requires_grad_(True)
    real_B2 = scores(discriminator, batch, x_BCHW, made.own_style, batch.own_B)
    target_B2 = scores(discriminator, batch, made.target, made.target_style, batch.target_B)
    cycle_B2 = scores(discriminator, batch, made.cycle, made.own_style, batch.own_B)
    slopes = [torch.autograd.grad(real_B2[:, k].sum(), x_BCHW, create_graph=True)[0] for k in (0, 1)]
    return {
        "real": F.relu(1 - real_B2).mean(0).sum(),
        "fake": F.relu(1 + target_B2[:, 0]).mean(),
        "cycle": F.relu(1 + cycle_B2[:, 1]).mean(),
        "penalty": torch.stack([slope.square().flatten(1).sum(1).mean() for slope in slopes]).sum(),
    }
