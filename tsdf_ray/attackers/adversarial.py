"""Adversarial retraining: photos are protected afresh, against the generator as it stands, while it trains on them."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field

from tsdf_ray.generators.base import Family


class AdversarialConfig(BaseModel):
    """The protection the attacker imagines: sign steps that break the present generator's edits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: float = Field(0.05, gt=0.0, le=1.0, description="L-infinity budget it assumes, on the [-1, 1] scale")
    steps: int = Field(3, ge=1, le=100, description="sign steps per batch, each a pass through the generator and back")
    step_size: float | None = Field(None, gt=0.0, le=1.0, description="of a sign step; default 1.5 epsilon / steps")
    share: float = Field(0.5, gt=0.0, le=1.0, description="share of every batch that is protected afresh")


class Hardened(Family):
    """A family seen through photos that are protected afresh: every loss is computed on those, labels as they were.

    The training loop calls `edit` first in every step (the forgery both losses share): there the photos are protected,
    and the losses of the step take the same ones. Weights, parts and losses are the inner family's own.
    """

    def __init__(self, inner: Family, config: AdversarialConfig, rng: torch.Generator) -> None:
        """`rng` draws the starts, in the order of the steps: a training begins with a fresh one."""
        self.inner, self._config, self._rng = inner, config, rng
        self.attributes, self.parts = inner.attributes, inner.parts
        self.photos = 0
        """Photos protected so far."""
        self._photos_BCHW = torch.zeros(0)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The inner family's."""
        return self.inner.name

    @property
    def frozen_parts(self) -> tuple[str, ...]:  # type: ignore[override]
        """The inner family's."""
        return self.inner.frozen_parts

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        """G(x', c), x' = x protected against G."""
        self._photos_BCHW = self.protect(x_BCHW, c_BA)
        return self.inner.edit(self._photos_BCHW, c_BA)

    def protect(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        """The first `share` of the batch (one at least) after sign ascent on MSE(G(x + w, c), G(x, c)), |w| <= epsilon.

        float [B, 3, H, W] in [-1, 1], no gradient. As `pgd` of METHOD section 8 (Ruiz et al. 2020): w starts uniform,
        because at zero the gradient vanishes. A batch is drawn at random, so its first photos are.
        """
        config = self._config
        count = max(1, int(config.share * len(x_BCHW) + 0.5))
        x, c = x_BCHW[:count].detach(), c_BA[:count]
        step = config.step_size or 1.5 * config.epsilon / config.steps
        start = torch.rand(x.shape, generator=self._rng).to(x.device) * 2 - 1
        w = config.epsilon * start
        with torch.no_grad():
            clean = self.inner.edit(x, c).float()
        for _ in range(config.steps):
            w.requires_grad_()
            with torch.enable_grad():
                change = (self.inner.edit((x + w).clamp(-1.0, 1.0), c).float() - clean).square().mean()
                (gradient,) = torch.autograd.grad(change, w)
            w = (w.detach() + step * gradient.sign()).clamp(-config.epsilon, config.epsilon)
        self.photos += count
        return torch.cat([(x + w).clamp(-1.0, 1.0), x_BCHW[count:]])

    def features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        """The inner family's, of the photo as given."""
        return self.inner.features(x_BCHW, c_BA)

    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The inner family's, of the photo as given."""
        return self.inner.edit_and_features(x_BCHW, c_BA)

    def discriminator_loss(
        self,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        rng: torch.Generator,
        fake_BCHW: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The inner family's, on the photos of the last `edit`."""
        return self.inner.discriminator_loss(self._photos_BCHW, own_BA, target_BA, rng, fake_BCHW)

    def generator_loss(
        self,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        rng: torch.Generator,
        fake_BCHW: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The inner family's, on the photos of the last `edit`."""
        return self.inner.generator_loss(self._photos_BCHW, own_BA, target_BA, rng, fake_BCHW)

    def config_json(self) -> str:
        """The inner family's."""
        return self.inner.config_json()
