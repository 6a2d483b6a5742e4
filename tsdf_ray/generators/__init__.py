"""Deepfake generators: one file per family, one training loop, weights by name."""

from __future__ import annotations

from tsdf_ray.generators.attentiongan import AttentionGAN, AttentionGANConfig
from tsdf_ray.generators.attgan import AttGAN, AttGANConfig
from tsdf_ray.generators.base import Family, Tensors
from tsdf_ray.generators.catalogue import Packaged, WeightsInfo, describe_weights, packaged_weights
from tsdf_ray.generators.editor import Editor, EditorConfig
from tsdf_ray.generators.fresh import fresh_family, restart
from tsdf_ray.generators.hisd import HiSD, HiSDConfig, Tag
from tsdf_ray.generators.official import load_official
from tsdf_ray.generators.pretrain import PretrainConfig, Progress, pretrain
from tsdf_ray.generators.stargan import StarGAN, StarGANConfig
from tsdf_ray.generators.train_config import TrainConfig
from tsdf_ray.generators.trainer import Trainer
from tsdf_ray.generators.training import TrainResult, train
from tsdf_ray.generators.weights import GENERATORS, load_family, save_family

__all__ = [
    "GENERATORS",
    "AttGAN",
    "AttGANConfig",
    "AttentionGAN",
    "AttentionGANConfig",
    "Editor",
    "EditorConfig",
    "Family",
    "HiSD",
    "HiSDConfig",
    "Packaged",
    "PretrainConfig",
    "Progress",
    "StarGAN",
    "StarGANConfig",
    "Tag",
    "Tensors",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "WeightsInfo",
    "describe_weights",
    "fresh_family",
    "load_family",
    "load_official",
    "packaged_weights",
    "pretrain",
    "restart",
    "save_family",
    "train",
]
