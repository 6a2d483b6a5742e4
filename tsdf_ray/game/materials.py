"""What all roles of a race share: photos and the generator everyone starts from. Loaded once by the driver, then by
reference (numpy arrays leave the object store without a copy)."""

from __future__ import annotations

from dataclasses import dataclass

from tsdf_ray.attackers import check_supply
from tsdf_ray.errors import UserError
from tsdf_ray.faces import Splits, load_splits
from tsdf_ray.generators import Family, Tensors, load_family
from tsdf_ray.scenario import Scenario


@dataclass(frozen=True)
class Materials:
    """Photos of one seed, and G_0 (all parts: generator, discriminator, ...)."""

    splits: Splits
    generator: Tensors


def load_materials(scenario: Scenario, seed: int) -> Materials:
    """Read photos and weights, and check that every attacker finds enough photos.

    Raises UserError (photos missing, bad or too few; weights missing or not fitting the photos).
    """
    family = load_family(scenario.generator)
    family.check_side(scenario.faces.size, "faces.size")
    splits = load_splits(scenario.faces, seed, family.attributes)
    for name, attacker in scenario.attackers.items():
        try:
            check_supply(attacker.collect, scenario.rounds, len(splits.attacker))
        except UserError as error:
            raise UserError(f"attackers.{name}.{error}") from error
    return Materials(splits, family.tensors())


def family_with(weights: str, tensors: Tensors) -> Family:
    """A fresh family of the same kind and size as `weights`, carrying `tensors`."""
    family = load_family(weights)
    family.load(tensors)
    return family
