"""Deepfake makers who adapt: they collect published photos, prepare and purify them, and retrain."""

from __future__ import annotations

from tsdf_ray.attackers.base import Attacker, AttackerConfig, Studied
from tsdf_ray.attackers.collect import Choice, CollectConfig, check_supply, choose, own_photos
from tsdf_ray.attackers.denoiser import DenoiseStep
from tsdf_ray.attackers.prepare import PrepareConfig, Prepared, prepare
from tsdf_ray.attackers.purify import Fitted, Purifier, PurifyConfig, SubtractStep, fit
from tsdf_ray.attackers.retrain import RetrainConfig, Retrained
from tsdf_ray.attackers.work import Work, Worklog

__all__ = [
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
    "own_photos",
    "prepare",
]
