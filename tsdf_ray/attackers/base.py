"""The attacker: its steps in order. No state between calls; a step may be issued twice.

An attacker of a plug-in is a subclass with another `study`, `prepare` or `retrain`, and keys of its own beside these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from tsdf_ray.attackers.collect import CollectConfig
from tsdf_ray.attackers.prepare import PrepareConfig, Prepared, prepare
from tsdf_ray.attackers.purify import Fitted, Purifier, PurifyConfig, denoisers, fit
from tsdf_ray.attackers.retrain import DECAY, RetrainConfig, Retrained, pool_of, retrain
from tsdf_ray.attackers.work import Work, Worklog
from tsdf_ray.crew import ALONE, Seat
from tsdf_ray.detectors.base import Detector
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.base import Family

ADAPTIVE = "adaptive"
"""The built-in attacker: what a scenario means that names no `kind`."""


class AttackerConfig(BaseModel):
    """One attacker of a scenario: collect, prepare, purify, retrain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(ADAPTIVE, description="which attacker: the built-in one, or a plug-in's")
    collect: CollectConfig = Field(default_factory=CollectConfig, description="which photos, how many protected")
    prepare: PrepareConfig = Field(default_factory=PrepareConfig, description="detect, drop, crop")
    purify: PurifyConfig = Field(default_factory=PurifyConfig, description="what is done against perturbations, where")
    retrain: RetrainConfig = Field(default_factory=RetrainConfig, description="how the generator is fitted to them")

    @model_serializer(mode="wrap")
    def _built_in_unnamed(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A scenario with built-in attackers alone keeps the digest it had before there were others.
        content: dict[str, Any] = write(self)
        return {key: value for key, value in content.items() if (key, value) != ("kind", ADAPTIVE)}

    @model_validator(mode="after")
    def _purification_is_possible(self) -> AttackerConfig:
        steps = self.purify.steps
        learned = any("denoise" in (step.kind, getattr(getattr(step, "denoised", None), "kind", "")) for step in steps)
        if learned and not self.collect.own:
            raise PydanticCustomError(
                "denoise", "denoise learns on clean photos of its own; set collect.own", {"path": ["purify"]}
            )
        cropped = self.prepare.crop == "box" or self.prepare.on_miss == "center_crop"
        if cropped and any(step.kind == "subtract" for step in self.purify.train):
            raise PydanticCustomError(
                "subtract",
                "after a crop nothing lies where it was; put subtract into purify.prepare",
                {"path": ["purify", "train"]},
            )
        return self


@dataclass(frozen=True)
class Studied:
    """What an attacker has learned for its purification in a round."""

    fitted: Fitted
    work: tuple[Work, ...] = ()


class Attacker:
    """Plays an `AttackerConfig` with the detectors it names.

    The evaluator judges by the config: it purifies with `purify` and what `study` fitted, and measures `prepare`'s
    crops against those of clean photos. A subclass that prepares in another way says in its config what comes near.
    """

    name: ClassVar[str] = ADAPTIVE
    config_class: ClassVar[type[AttackerConfig]] = AttackerConfig

    def __init__(
        self,
        config: AttackerConfig,
        run_seed: int,
        detectors: Mapping[str, Detector],
        decay: Sequence[float] = DECAY,
        seat: Seat = ALONE,
        micro_batch: int | None = None,
    ) -> None:
        self.config = config
        self._seat, self._micro_batch = seat, micro_batch
        self._run_seed = run_seed
        self._detectors = detectors
        self._decay = tuple(decay)
        # Kept because they never change in a match; an attacker that is built anew trains the same ones again.
        self._denoisers: Fitted = {}

    def study(self, round: int, own: FaceSet, published: FaceSet) -> Studied:
        """What purification learns: on the attacker's `own` clean photos, and from the round's photos as `published`.

        Raises MatchFailed when a loss is not finite.
        """
        log = Worklog()
        fitted = fit(self.config.purify, own, published, self._run_seed, self._denoisers, log)
        self._denoisers = denoisers(fitted, self.config.purify)
        return Studied(fitted, log.done)

    def prepare(self, round: int, published: FaceSet, studied: Studied) -> Prepared:
        """What is usable of the photos as published: purified, detected, cropped, purified for training."""
        log = Worklog()
        purifier = Purifier(self.config.purify, studied.fitted, log)
        prepared = prepare(self.config.prepare, self._detectors, purifier("prepare", published), log)
        photos = purifier("train", prepared.photos)
        return replace(prepared, photos=photos, work=log.done)

    def retrain(self, round: int, pool: Sequence[FaceSet], family: Family) -> Retrained:
        """G_r from `family` (carrying G_{r-1}; trained in place) on the usable photos of the pool's rounds.

        Raises MatchFailed when a loss is not finite.
        """
        names = (round, "attacker", "retrain")
        return retrain(self.config.retrain, family, pool_of(pool), self._run_seed, names, self._decay)
