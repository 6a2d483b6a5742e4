"""`cmua`: one watermark for all photos and generators (Huang et al., "CMUA-Watermark", AAAI 2022, arXiv 2105.10872).

Generator by generator and label by label the photos of a batch are attacked, and the mean of their perturbations flows
into the watermark w. The published search (TPE) for a factor per generator is left to whoever sets `factors`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from tsdf_ray.crew import pieces
from tsdf_ray.defenders.base import DefenceState, Defender, DefenderConfig, Knowledge
from tsdf_ray.defenders.eot import GradientConfig
from tsdf_ray.defenders.forgeries import Part, Visit
from tsdf_ray.defenders.interruption import Interruption, finite, output_alone
from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.edits import edit_labels
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.randomness import torch_rng

Factor = Annotated[float, Field(ge=0.0, le=10.0)]


class CmuaConfig(GradientConfig):
    """Defaults as published."""

    steps: int = Field(10, ge=1, le=1000, description="sign steps per generator and label vector")
    step_size: float = Field(0.01, gt=0.0, le=1.0, description="of a sign step, on the [-1, 1] scale")
    batch: int = Field(64, ge=1, le=512, description="photos attacked together")
    memory: float = Field(0.5, ge=0.0, lt=1.0, description="share of the watermark so far in each fusion")
    factors: dict[str, Factor] = Field(
        default_factory=dict, description="per generator, of its perturbations before the clip; 1 where not given"
    )


class Cmua(Defender):
    """Universal: two-level fusion, over the photos of a batch and over generators and labels."""

    name: ClassVar[str] = "cmua"
    config_class: ClassVar[type[DefenderConfig]] = CmuaConfig
    config: CmuaConfig

    def learn(self, knowledge: Knowledge) -> DefenceState:
        """Tensor `w` float32 [1, 3, S, S] in +-epsilon.

        Raises MatchFailed without a generator or photos, for a factor of an unknown generator, and when a gradient is
        not finite.
        """
        config, photos = self.config, knowledge.photos
        w = torch.zeros(1, 3, photos.size, photos.size)
        if config.epsilon == 0.0:
            return DefenceState(knowledge, {"w": w.numpy()})
        unknown = sorted(set(config.factors) - set(knowledge.generators))
        if unknown:
            raise MatchFailed(f"defender cmua: factors of {unknown}, but it knows {sorted(knowledge.generators)}")
        if len(photos) == 0:
            raise MatchFailed("defender cmua needs photos to learn on, the defender's split is empty")
        plain = output_alone(config, config.step_size, min(config.batch, len(photos)))
        known = {name: replace(knowledge, generators={name: g}) for name, g in knowledge.generators.items()}
        # Without a generator there is nothing to go through below: let the refusal name it.
        works = {name: Interruption(plain, part, photos) for name, part in (known or {"": knowledge}).items()}
        rng = torch_rng(knowledge.run_seed, knowledge.round, "defender", "cmua")
        first = True
        for start in range(0, len(photos), config.batch):
            index = range(start, min(start + config.batch, len(photos)))
            for name, work in works.items():
                for number in range(len(known[name].generators[name].attributes) + 1):
                    visit = work.visit(index, partial(label_vector, number=number))
                    w = self._attack(work, visit, w, config.factors.get(name, 1.0), rng, first=first)
                    first = False
        return DefenceState(knowledge, {"w": w.cpu().numpy()})

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        """The watermark [1, 3, S, S] for any photos."""
        return torch.tensor(state.tensors["w"])

    def _attack(
        self,
        work: Interruption,
        visit: Visit,
        w: torch.Tensor,
        factor: float,
        rng: torch.Generator,
        *,
        first: bool,
    ) -> torch.Tensor:
        """The watermark after the steps against one generator under one label vector of each photo.

        Workers share the micro-batches; eta is the sum of their means by their shares of the batch.
        """
        config, x_BCHW, (name,) = self.config, visit.x_BCHW, work.families
        noise = (torch.rand(x_BCHW.shape, generator=rng) * 2 - 1) * config.epsilon
        seen_BCHW = (x_BCHW + noise.to(work.device)).clamp(-1.0, 1.0)
        parts = [Part(name, rows) for rows in pieces(len(x_BCHW), work.at_once)]
        w = w.to(work.device)
        for step in range(config.steps):
            scene, total = work.scene(rng), work.crew.total(len(parts))
            for part in (parts[n] for n in total.mine):
                change = (seen_BCHW - x_BCHW)[part.slice].requires_grad_()
                (gradient,) = torch.autograd.grad(-work.changes(change, visit, part, scene).sum(), change)
                attacked_BCHW = seen_BCHW[part.slice] - config.step_size * gradient.sign()
                eta = fuse(attacked_BCHW - x_BCHW[part.slice], factor, config.epsilon)
                # What is not finite must reach every worker: its sign is 0 and would hide it.
                total.add([eta * (len(part.rows) / len(x_BCHW)), (gradient * 0.0).sum().reshape(1)])
            eta, lost = total.sum([w, w.new_zeros(1)])
            finite(lost)
            w = eta if first and step == 0 else config.memory * w + (1 - config.memory) * eta
            seen_BCHW = (x_BCHW + w).clamp(-1.0, 1.0)
        return w


def label_vector(labels_BA: torch.Tensor, attributes: tuple[str, ...], number: int) -> torch.Tensor:
    """Number 0: every photo's own labels. Number a + 1: its labels after edit a (its own hair colour leaves them)."""
    if number == 0:
        return labels_BA.float()
    return torch.stack([edit_labels(own_A, number - 1, attributes) for own_A in labels_BA]).float()


def fuse(change_BCHW: torch.Tensor, factor: float, epsilon: float) -> torch.Tensor:
    """eta = mean over the batch of clip(factor * (x' - x), +-epsilon): [1, 3, S, S] (perturbation level)."""
    return (factor * change_BCHW).clamp(-epsilon, epsilon).mean(0, keepdim=True)
