"""Deepfake makers who adapt: they collect published photos, prepare and purify them, and retrain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tsdf_ray.attackers.base import Attacker, AttackerConfig, Studied
from tsdf_ray.attackers.collect import Choice, CollectConfig, check_supply, choose, own_photos
from tsdf_ray.attackers.denoiser import DenoiseStep
from tsdf_ray.attackers.prepare import PrepareConfig, Prepared, prepare
from tsdf_ray.attackers.purify import Fitted, Purifier, PurifyConfig, SubtractStep, fit
from tsdf_ray.attackers.retrain import RetrainConfig, Retrained
from tsdf_ray.attackers.work import Work, Worklog
from tsdf_ray.crew import ALONE, Seat
from tsdf_ray.detectors.base import Detector
from tsdf_ray.registry import look_up

ATTACKERS: dict[str, type[Attacker]] = {Attacker.name: Attacker}
"""Built-in attackers by the name a scenario uses (`kind`); plug-ins declare one in the group `tsdf_ray.attackers`."""


def make_attacker(
    config: AttackerConfig,
    run_seed: int,
    detectors: Mapping[str, Detector],
    decay: Sequence[float],
    seat: Seat = ALONE,
    micro_batch: int | None = None,
) -> Attacker:
    """The attacker a config describes, built in or a plug-in's. Raises UserError for an unknown kind."""
    return look_up("attackers", config.kind, ATTACKERS)(
        config, run_seed, detectors, decay, seat=seat, micro_batch=micro_batch
    )


__all__ = [
    "ATTACKERS",
    "Attacker",
    "AttackerConfig",
    "Choice",
    "CollectConfig",
    "DenoiseStep",
    "Fitted",
    "PrepareConfig",
    "Prepared",
    "Purifier",
    "PurifyConfig",
    "RetrainConfig",
    "Retrained",
    "Studied",
    "SubtractStep",
    "Work",
    "Worklog",
    "check_supply",
    "choose",
    "fit",
    "make_attacker",
    "own_photos",
    "prepare",
]
