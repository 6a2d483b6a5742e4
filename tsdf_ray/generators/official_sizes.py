"""Configs of official checkpoints, read from their tensors' shapes.

Each function takes the state dicts of the parts a file holds (`generator`, perhaps `discriminator`). It raises
KeyError, IndexError or ValueError where these are not of its family; `check_tensors` finds wrong shapes further in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import count, product, takewhile
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tsdf_ray.generators.attgan import AttGANConfig
from tsdf_ray.generators.hisd import HiSDConfig, Tag
from tsdf_ray.generators.stargan import StarGANConfig

State = dict[str, npt.NDArray[np.generic]]
Config = TypeVar("Config", bound=StarGANConfig)


def stargan_config(kind: type[Config], parts: Mapping[str, State]) -> Config:
    """Of StarGAN or AttentionGAN. Labels are not named in the file: five are the paper's, further ones get a number."""
    state = parts["generator"]
    width, inputs = state["main.0.weight"].shape[:2]
    sizes: dict[str, Any] = {"width": width, "blocks": sum(1 for name in state if name.endswith(".main.0.weight"))}
    if inputs < 4:
        raise ValueError(f"tensor 'main.0.weight' has {inputs} input channels, expected 3 and the labels")
    if "discriminator" in parts:
        critic = parts["discriminator"]
        layers = sum(1 for name in critic if name.startswith("main.") and name.endswith(".weight"))
        sizes["discriminator_width"] = critic["main.0.weight"].shape[0]
        sizes["discriminator_layers"] = layers
        sizes["image_size"] = critic["conv2.weight"].shape[-1] * 2**layers
    known = kind().attributes
    attributes = tuple(known[i] if i < len(known) else f"label_{i}" for i in range(inputs - 3))
    return kind(attributes=attributes, **sizes)


def attgan_config(parts: Mapping[str, State]) -> AttGANConfig:
    """Of AttGAN. Thirteen labels are the paper's; another number of them gets numbers."""
    state = parts["generator"]
    codes = _channels(state, "enc_layers.{}.layers.0.weight")
    inputs = _channels(state, "dec_layers.{}.layers.0.weight")  # transposed convolutions: inputs come first
    labels = inputs[0] - codes[-1]
    if labels < 1:
        raise ValueError(
            f"tensor 'dec_layers.0.layers.0.weight' has {inputs[0]} inputs, expected {codes[-1]} and labels"
        )
    known = AttGANConfig().attributes
    shortcuts, injects = _extras(codes, inputs, labels)
    sizes: dict[str, Any] = {
        "attributes": known if labels == len(known) else tuple(f"label_{i}" for i in range(labels)),
        "width": codes[0],
        "widest": max(codes),
        "layers": len(codes),
        "shortcut_layers": shortcuts,
        "inject_layers": injects,
    }
    if "discriminator" in parts:
        critic = parts["discriminator"]
        widths = _channels(critic, "conv.{}.layers.0.weight")
        hidden, seen = critic["fc_adv.0.layers.0.weight"].shape
        sizes["discriminator_width"] = widths[0]
        sizes["discriminator_layers"] = len(widths)
        sizes["hidden"] = hidden
        sizes["image_size"] = math.isqrt(seen // widths[-1]) * 2 ** len(widths)
    return AttGANConfig(**sizes)


def _extras(codes: list[int], inputs: list[int], labels: int) -> tuple[int, int]:
    """How many decoder layers are followed by a code, and by the labels; the defaults where no numbers fit."""
    layers = len(codes)
    for injects, shortcuts in product(range(layers), repeat=2):
        expected = [
            codes[-1 - i] + (codes[-2 - i] if i < shortcuts else 0) + (labels if i < injects else 0)
            for i in range(layers - 1)
        ]
        if inputs[1:] == expected:
            return shortcuts, injects
    return 1, 0


def hisd_config(parts: Mapping[str, State]) -> HiSDConfig:
    """Of HiSD. Tags of 2, 2 and 3 choices are the official ones; others get numbers, two choices are yes and no."""
    state = parts["generator"]
    mappers = takewhile(lambda i: f"mappers.{i}.pre_model.0.weight" in state, count())
    choices = [len(_channels(state, f"mappers.{i}.post_models.{{}}.0.linear.weight")) for i in mappers]
    tags = HiSDConfig().tags
    if choices != [len(tag.choices) for tag in tags]:
        tags = tuple(_numbered(i, number) for i, number in enumerate(choices))
    choice = "mappers.0.post_models.0"
    return HiSDConfig(
        tags=tags,
        widths=_blocks(state, "encoder", "conv2"),
        translator_widths=_blocks(state, "translators.0.model", "conv2"),
        extractor_widths=_blocks(state, "extractors.model", "conv2"),
        mapper_widths=_blocks(state, "mappers.0.pre_model", "linear"),
        choice_widths=(
            state[f"{choice}.0.linear.weight"].shape[1],
            *_channels(state, f"{choice}.{{}}.linear.weight"),
        ),
        style=state["translators.0.style_to_params.weight"].shape[1],
        noise=state["mappers.0.pre_model.0.weight"].shape[1],
    )


def _numbered(tag: int, choices: int) -> Tag:
    if choices < 2:
        raise ValueError(f"tag {tag} has {choices} choices, expected at least 2")
    name = f"tag_{tag}"
    return Tag(name=name, labels=(name,) if choices == 2 else tuple(f"{name}_label_{j}" for j in range(choices)))


def _channels(state: State, pattern: str) -> list[int]:
    """First dimension of the tensors `pattern` with 0, 1, ... in it, as far as there are any. Raises KeyError: none."""
    names = takewhile(lambda name: name in state, (pattern.format(i) for i in count()))
    found = [state[name].shape[0] for name in names]
    if not found:
        raise KeyError(pattern.format(0))
    return found


def _blocks(state: State, prefix: str, layer: str) -> tuple[int, ...]:
    """Channels after the first layer of a Sequential and after each of the blocks that follow it."""
    names = takewhile(lambda name: name in state, (f"{prefix}.{i}.{layer}.weight" for i in count(1)))
    return (state[f"{prefix}.0.weight"].shape[0], *(state[name].shape[0] for name in names))
