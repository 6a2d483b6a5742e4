"""`tsdf`: interruption and poisoning in one perturbation, separated by intensity (arXiv 2508.07795)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from tsdf_ray.crew import pieces, span
from tsdf_ray.defenders.base import DefenceState, Defender, DefenderConfig, Knowledge
from tsdf_ray.defenders.interruption import InterruptionConfig
from tsdf_ray.defenders.learning import Between, learn_universal
from tsdf_ray.defenders.poisoning import PoisonConfig, Poisoner
from tsdf_ray.defenders.separation import ShareConfig, reserve_random, reserve_weakest, separation_mask
from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.randomness import torch_rng


class TsdfConfig(InterruptionConfig):
    """Stages 1 and 2. tau and beta as the paper; `share` and per-image poison are what makes it work at 128 px."""

    tau: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="entries with |w| below it may carry poison; default 0.8 epsilon",
    )
    beta: float = Field(5.0, ge=0.0, le=1000.0, description="decay of the poison's weight with |w|")
    share: ShareConfig = Field(default_factory=ShareConfig, description="entries kept free of interruption")
    poison: PoisonConfig = Field(default_factory=PoisonConfig, description="stage 2")

    @property
    def threshold(self) -> float:
        """tau in use."""
        return 0.8 * self.epsilon if self.tau is None else self.tau

    @model_validator(mode="after")
    def _has_detectors(self) -> TsdfConfig:
        if not self.detectors:
            raise PydanticCustomError(
                "detectors", "tsdf poisons detectors: name at least one it knows in `detectors`", {}
            )
        unknown = sorted(set(self.poison.detector_weights) - set(self.detectors))
        if unknown:
            raise PydanticCustomError(
                "detectors", "poison.detector_weights names {names}, not in `detectors`", {"names": ", ".join(unknown)}
            )
        return self


class Tsdf(Defender):
    """A universal interruption w, and poison where w is weak or absent: per photo, or universal inside w."""

    name: ClassVar[str] = "tsdf"
    config_class: ClassVar[type[DefenderConfig]] = TsdfConfig
    config: TsdfConfig

    @property
    def batch_per_image(self) -> int | None:
        """Photos poisoned at once, when each has its own poison."""
        return None if self.config.poison.universal else self.config.poison.batch

    def learn(self, knowledge: Knowledge) -> DefenceState:
        """Tensors `w` float32 and `reserved` uint8, both [1, 3, S, S]. w is zero where reserved, unless poison is
        universal and stands there."""
        reserved = self._reserved(knowledge)
        between = self._universal_poison(knowledge, reserved) if self.config.poison.universal else None
        w = learn_universal(self.config, knowledge, ~reserved, between)
        return DefenceState(knowledge, {"w": w.numpy(), "reserved": reserved.numpy().astype(np.uint8)})

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        """w + delta: [B, 3, S, S], one delta per photo, optimised here; [1, 3, S, S] when poison is universal."""
        w = torch.tensor(state.tensors["w"])
        if self.config.poison.universal:
            return w
        if photos.size != w.shape[-1]:
            raise MatchFailed(
                f"defender tsdf: learned on {w.shape[-1]} px photos, asked to protect {photos.size} px ones"
            )
        mask = self._mask(w, torch.tensor(state.tensors["reserved"]).bool())
        return w + self._poisoner(state.knowledge).poison(photos.images(), w, mask, photos.ids)

    def _reserved(self, knowledge: Knowledge) -> torch.Tensor:
        share, shape = self.config.share, (1, 3, knowledge.photos.size, knowledge.photos.size)
        if share.choice == "weakest" and share.fraction > 0:
            return reserve_weakest(share.fraction, learn_universal(self.config, knowledge))
        rng = torch_rng(knowledge.run_seed, knowledge.round, "defender", "share")
        return reserve_random(share.fraction, shape, rng)

    def _mask(self, w: torch.Tensor, reserved: torch.Tensor) -> torch.Tensor:
        mask = separation_mask(w, self.config.threshold, self.config.beta)
        # Reserved entries belong to the poison alone: once universal poison stands there, |w| no longer says so.
        return torch.where(reserved.to(w.device), 1.0, mask)

    def _poisoner(self, knowledge: Knowledge) -> Poisoner:
        detectors = {name: knowledge.detectors[name] for name in self.config.detectors}
        draws = (knowledge.run_seed, knowledge.round)
        at_once = knowledge.at_once(self.config.poison.batch)
        poison = self.config.poison.model_copy(update={"batch": at_once})
        return Poisoner(poison, self.config.epsilon, detectors, *draws, self.config.eot)

    def _universal_poison(self, knowledge: Knowledge, reserved: torch.Tensor) -> Between:
        poisoner, photos, epsilon = self._poisoner(knowledge), knowledge.photos.images(), self.config.epsilon
        visits = [0]

        def between(w: torch.Tensor, index: Sequence[int]) -> torch.Tensor:
            visits[0] += 1
            mask, parts = self._mask(w, reserved), pieces(len(index), poisoner.config.batch)

            def own(mine: range) -> torch.Tensor:
                chosen = [index[row] for row in span(parts, mine)]
                ids = [knowledge.photos.ids[i] for i in chosen]
                return poisoner.poison(photos[chosen], w, mask, ids, f"batch {visits[0]}")

            delta = torch.cat(knowledge.seat.crew.share(len(parts), own))
            return (w + delta.to(w.device)).clamp(-epsilon, epsilon).mean(0, keepdim=True)

        return between
