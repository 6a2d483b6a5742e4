"""The attacker: its steps in order. No state between calls; a step may be issued twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from tsdf_ray.attackers.collect import CollectConfig
from tsdf_ray.attackers.prepare import PrepareConfig, Prepared, prepare
from tsdf_ray.attackers.purify import purify
from tsdf_ray.attackers.retrain import DECAY, RetrainConfig, Retrained, pool_of, retrain
from tsdf_ray.channels import ChannelConfig
from tsdf_ray.detectors.base import Detector
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.base import Family


class AttackerConfig(BaseModel):
    """One attacker of a scenario: collect, prepare, purify, retrain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    collect: CollectConfig = Field(default_factory=CollectConfig, description="which photos, how many protected")
    prepare: PrepareConfig = Field(default_factory=PrepareConfig, description="detect, drop, crop")
    purify: tuple[ChannelConfig, ...] = Field((), max_length=8, description="channels run over usable photos")
    retrain: RetrainConfig = Field(default_factory=RetrainConfig, description="how the generator is fitted to them")


class Attacker:
    """Plays an `AttackerConfig` with the detectors it names."""

    def __init__(
        self,
        config: AttackerConfig,
        run_seed: int,
        detectors: Mapping[str, Detector],
        decay: Sequence[float] = DECAY,
    ) -> None:
        self.config = config
        self._run_seed = run_seed
        self._detectors = detectors
        self._decay = tuple(decay)

    def prepare(self, round: int, published: FaceSet) -> Prepared:
        """What is usable of the photos as published: detected, cropped, purified."""
        prepared = prepare(self.config.prepare, self._detectors, published)
        photos = purify(self.config.purify, prepared.photos)
        return replace(prepared, photos=photos)

    def retrain(self, round: int, pool: Sequence[FaceSet], family: Family) -> Retrained:
        """G_r from `family` (carrying G_{r-1}; trained in place) on the usable photos of the pool's rounds.

        Raises MatchFailed when a loss is not finite.
        """
        names = (round, "attacker", "retrain")
        return retrain(self.config.retrain, family, pool_of(pool), self._run_seed, names, self._decay)
