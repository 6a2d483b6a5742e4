"""`anti_forgery`: colour shifts of each photo (Wang et al., "Anti-Forgery", IJCAI 2022, arXiv 2206.00477).

Only a and b of CIE Lab are perturbed, the lightness stays. p is in the published units, a / 110 and b / 110.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from pydantic import Field

from tsdf_ray.crew import pieces
from tsdf_ray.defenders.base import DefenceState, Defender, DefenderConfig, Knowledge
from tsdf_ray.defenders.descent import Adam
from tsdf_ray.defenders.eot import GradientConfig
from tsdf_ray.defenders.interruption import Interruption, output_alone
from tsdf_ray.defenders.learning import edits_in_turn
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.randomness import torch_rng

SCALE = 110.0
"""Published scaling of a and b."""


class AntiForgeryConfig(GradientConfig):
    """Defaults as published. `epsilon` holds as for every defence, on top of the bound on a and b."""

    steps: int = Field(100, ge=1, le=10_000, description="Adam steps per photo (betas 0.9, 0.999)")
    lr: float = Field(1e-4, gt=0.0, le=1.0, description="of Adam, in units of 110 Lab steps")
    colour_limit: float = Field(0.05, ge=0.0, le=1.0, description="bound on |p| in units of 110 Lab steps (0.05: 5.5)")
    batch: int = Field(
        1,
        ge=1,
        le=512,
        description="photos optimised at once; p starts where the gradient is rounding alone, so with more than one "
        "a photo depends on its company",
    )


class AntiForgery(Defender):
    """Per image: p starts at zero and climbs MSE(G(x', c), G(x, c)), the requested edit changing with every step."""

    name: ClassVar[str] = "anti_forgery"
    config_class: ClassVar[type[DefenderConfig]] = AntiForgeryConfig
    config: AntiForgeryConfig

    @property
    def batch_per_image(self) -> int:
        """Photos optimised at once."""
        return self.config.batch

    def learn(self, knowledge: Knowledge) -> DefenceState:
        """No tensors: all work is done per photo."""
        return DefenceState(knowledge)

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        """x' - x, float32 [B, 3, S, S]; may leave +-epsilon where a colour shift does (the base class clips it).

        Raises MatchFailed without a generator, and when a gradient is not finite.
        """
        config = self.config
        found = [torch.zeros(0, 3, photos.size, photos.size)]
        if config.epsilon == 0.0 or len(photos) == 0:
            return torch.zeros(len(photos), 3, photos.size, photos.size)
        work = Interruption(output_alone(config, config.lr, config.batch), state.knowledge, photos)
        for index in map(list, pieces(len(photos), work.at_once)):
            found.append(self._shift(work, index, state.knowledge).cpu())
        return torch.cat(found)

    def _shift(self, work: Interruption, index: list[int], knowledge: Knowledge) -> torch.Tensor:
        x_BCHW = work.x_BCHW[index].to(work.device)
        lab_BCHW = to_lab(x_BCHW)
        p_B2HW, adam = torch.zeros_like(x_BCHW[:, 1:]), Adam()
        weights_MR = torch.full((len(work.families), len(index)), 1 / len(work.families), device=work.device)
        for step in range(self.config.steps):
            rng = torch_rng(knowledge.run_seed, knowledge.round, "defender", "anti_forgery", step)
            visit = work.visit(index, partial(edits_in_turn, step=step))
            p_B2HW = p_B2HW.detach().requires_grad_()
            w = shifted(lab_BCHW, p_B2HW) - x_BCHW
            slope, _ = work.output_gradient(w, visit, weights_MR, rng)
            (gradient,) = torch.autograd.grad(w, p_B2HW, slope)
            # Progress 0: the published rate does not fall.
            moved = p_B2HW.detach() - adam.step(gradient, self.config.lr, 0.0)
            p_B2HW = moved.clamp(-self.config.colour_limit, self.config.colour_limit)
        return shifted(lab_BCHW, p_B2HW.detach()) - x_BCHW


def to_lab(x_BCHW: torch.Tensor) -> torch.Tensor:
    """sRGB float [B, 3, H, W] in [-1, 1] to CIE Lab under D65: L in [0, 100], a and b about -108 to 98."""
    from kornia.color import rgb_to_lab

    lab_BCHW: torch.Tensor = rgb_to_lab((x_BCHW + 1.0) / 2.0)
    return lab_BCHW


def shifted(lab_BCHW: torch.Tensor, p_B2HW: torch.Tensor) -> torch.Tensor:
    """The photo [B, 3, H, W] in [-1, 1] whose a and b are moved by 110 p; differentiable. Colours outside sRGB are
    clipped to it."""
    from kornia.color import lab_to_rgb

    moved_BCHW = torch.cat([lab_BCHW[:, :1], lab_BCHW[:, 1:] + SCALE * p_B2HW], dim=1)
    rgb_BCHW: torch.Tensor = lab_to_rgb(moved_BCHW)
    return rgb_BCHW * 2.0 - 1.0
