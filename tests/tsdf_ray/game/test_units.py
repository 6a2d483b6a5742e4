"""The costs per photo, counted again with torch's operator counts, and against the published ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tsdf_ray.detectors import load_detector
from tsdf_ray.detectors.dsfd import DSFD
from tsdf_ray.detectors.s3fd import S3FD
from tsdf_ray.faces import HAIR
from tsdf_ray.game.units import DETECTORS, GENERATORS, JUDGE, SIDE
from tsdf_ray.generators import Family, load_family
from tsdf_ray.generators.weights import GENERATORS as FAMILIES
from tsdf_ray.judges import load_judge


class Operations(TorchDispatchMode):
    """torch's own counter also follows modules, which a gradient penalty does not survive."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def gflop(work: Callable[[], Any], photos: int, side: int) -> float:
    """Per photo of `SIDE` px."""
    with Operations() as operations:
        work()
    return operations.total / 1e9 / photos * (SIDE / side) ** 2


def family_of(name: str, side: int) -> Family:
    if name == "editor" or name not in FAMILIES:
        return load_family("editor-128" if name == "editor" else name)
    kind = FAMILIES[name]
    # HiSD's loss looks at its labels, so it must compute; of the others shapes alone are enough.
    with torch.device("cpu" if name == "hisd" else "meta"):
        return kind(kind.config_class.model_validate({"image_size": side}))


@pytest.mark.parametrize("name", GENERATORS)
def test_generator(name: str) -> None:
    side, photos, device = (64, 1, "cpu") if name.startswith("hisd") else (SIDE, 8, "meta")
    family, unit = family_of(name, side), GENERATORS[name]
    for module in family.parts.values():
        module.to(device)
    assert unit.labels == len(family.attributes)
    # Of the hair colours the photo's own is no edit.
    assert unit.edits == unit.labels - (1 if set(HAIR) <= set(family.attributes) else 0)
    x = torch.zeros(photos, 3, side, side, device=device)
    own, target = (torch.zeros(photos, unit.labels, device=device) for _ in range(2))
    own[:, family.attributes.index(HAIR[0])] = 1
    target[:, family.attributes.index(HAIR[1])] = 1
    family.freeze()
    with torch.no_grad():
        assert gflop(lambda: family.edit(x, target), photos, side) == pytest.approx(unit.edit, rel=0.03)
        assert gflop(lambda: family.features(x, target), photos, side) == pytest.approx(unit.features, rel=0.03)
    for part, module in family.parts.items():
        module.train().requires_grad_(part not in family.frozen_parts)

    def descend(losses: dict[str, torch.Tensor], part: str) -> None:
        total = torch.stack(list(losses.values())).sum()
        torch.autograd.grad(total, list(family.parts[part].parameters()), allow_unused=True)

    def critic(fake: torch.Tensor | None = None) -> None:
        descend(family.discriminator_loss(x, own, target, rng, fake), "discriminator")

    def step() -> None:
        fake = family.edit(x, target) if family.shares_fake else None
        critic(fake)
        descend(family.generator_loss(x, own, target, rng, fake), "generator")

    rng = torch.Generator().manual_seed(0)
    assert gflop(critic, photos, side) == pytest.approx(unit.critic, rel=0.05)
    assert gflop(step, photos, side) == pytest.approx(unit.step, rel=0.05)


@pytest.mark.parametrize(("name", "published"), [("stargan", 79.7), ("attentiongan", 80.1), ("attgan", 21.8)])
def test_official_generators_cost_what_is_published(name: str, published: float) -> None:
    """METHOD section 6: GFLOP of one forgery at 256 px."""
    assert GENERATORS[name].edit * 4 == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(("name", "published"), [("s3fd", 41.1), ("dsfd", 59.2), ("retinaface", 0.31)])
def test_detectors_cost_what_is_published(name: str, published: float) -> None:
    assert DETECTORS[name] * 4 == pytest.approx(published, rel=0.01)


# MTCNN's depends on how many windows look like a face.
@pytest.mark.parametrize("name", sorted(DETECTORS.keys() - {"mtcnn"}))
def test_detector(name: str) -> None:
    detector = {"s3fd": S3FD, "dsfd": DSFD}[name]().eval() if name in {"s3fd", "dsfd"} else load_detector(name)
    with torch.no_grad():
        found = gflop(lambda: detector.raw(torch.zeros(1, 3, SIDE, SIDE)), 1, SIDE)
    assert found == pytest.approx(DETECTORS[name], rel=0.03)


def test_judge() -> None:
    network = load_judge().network
    with torch.no_grad():
        assert gflop(lambda: network(torch.zeros(1, 3, SIDE, SIDE)), 1, SIDE) == pytest.approx(JUDGE, rel=0.03)
