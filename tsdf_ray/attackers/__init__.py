"""Deepfake makers who adapt: they collect published photos, prepare and purify them, and retrain."""

from __future__ import annotations

from tsdf_ray.attackers.base import Attacker, AttackerConfig
from tsdf_ray.attackers.collect import Choice, CollectConfig, check_supply, choose
from tsdf_ray.attackers.prepare import PrepareConfig, Prepared, prepare
from tsdf_ray.attackers.purify import purify
from tsdf_ray.attackers.retrain import RetrainConfig, Retrained

__all__ = [
    "Attacker",
    "AttackerConfig",
    "Choice",
    "CollectConfig",
    "PrepareConfig",
    "Prepared",
    "RetrainConfig",
    "Retrained",
    "check_supply",
    "choose",
    "prepare",
    "purify",
]
