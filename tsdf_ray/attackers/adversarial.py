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

    def count(self, photos: int) -> int:
        """How many of a batch (or micro-batch) of `photos` are protected afresh: one at least."""
        return max(1, int(self.share * photos + 0.5))


class Hardener:
    """Protects photos against a generator as it stands; `train` calls it on every batch or micro-batch it draws."""

    def __init__(self, family: Family, config: AdversarialConfig) -> None:
        self._family, self._config = family, config

    def __call__(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """The first `count` of the batch after sign ascent on MSE(G(x + w, c), G(x, c)), |w| <= epsilon.

        float [B, 3, H, W] in [-1, 1], no gradient. As `pgd` of METHOD section 8 (Ruiz et al. 2020): w starts uniform,
        because at zero the gradient vanishes. A batch is drawn at random, so its first photos are.
        """
        config = self._config
        count = config.count(len(x_BCHW))
        x, c = x_BCHW[:count].detach(), c_BA[:count]
        step = config.step_size or 1.5 * config.epsilon / config.steps
        w = config.epsilon * (torch.rand(x.shape, generator=rng).to(x.device) * 2 - 1)
        with torch.no_grad():
            clean = self._family.edit(x, c).float()
        for _ in range(config.steps):
            w.requires_grad_()
            with torch.enable_grad():
                change = (self._family.edit((x + w).clamp(-1.0, 1.0), c).float() - clean).square().mean()
                (gradient,) = torch.autograd.grad(change, w)
            w = (w.detach() + step * gradient.sign()).clamp(-config.epsilon, config.epsilon)
        return torch.cat([(x + w).clamp(-1.0, 1.0), x_BCHW[count:]])
