"""What all roles of a race share: photos and the generator everyone starts from. Loaded once by the driver, then by
reference (numpy arrays leave the object store without a copy)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tsdf_ray.attackers import check_supply
from tsdf_ray.detectors import Detector, load_detector
from tsdf_ray.detectors.weights import check_at_hand
from tsdf_ray.errors import MatchFailed, UserError
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
    for detector in scenario.detectors:
        path = scenario.weights_of(detector)
        check_at_hand(detector, path)
        if path is not None:
            load_detector(detector, path)
    family = load_family(scenario.generator)
    family.check_side(scenario.faces.size, "faces.size")
    splits = load_splits(scenario.faces, seed, family.attributes)
    for name, attacker in scenario.attackers.items():
        try:
            check_supply(attacker.collect, scenario.rounds, len(splits.attacker))
        except UserError as error:
            raise UserError(f"attackers.{name}.{error}") from error
    for name, entry in scenario.defenders.items():
        if entry.surrogate is not None:
            _check_surrogate(f"defenders.{name}.surrogate", entry.surrogate, family.attributes)
    return Materials(splits, family.tensors())


def _check_surrogate(where: str, weights: str, attributes: tuple[str, ...]) -> None:
    try:
        found = load_family(weights).attributes
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if found != attributes:
        raise UserError(f"{where}: edits {', '.join(found)}, the photos carry {', '.join(attributes)}; choose another")


def known_family(scenario: Scenario, defender: str, initial: Tensors, last: Tensors | None) -> Family:
    """The one generator a defender may differentiate through, frozen.

    initial: G_0. last: the attacker's G_{r-1}, given with knowledge `last_round` and only then. Raises MatchFailed when
    it is given to a defender that may not know it, or kept from one that may.
    """
    entry = scenario.defenders[defender]
    if (last is not None) != (entry.knowledge == "last_round"):
        given = "was given" if last is not None else "was not given"
        raise MatchFailed(f"defender {defender} (knowledge {entry.knowledge}) {given} the attacker's generator")
    if entry.surrogate is not None:
        return load_family(entry.surrogate).freeze()
    return family_with(scenario.generator, initial if last is None else last).freeze()


def detectors_with(scenario: Scenario, names: Iterable[str]) -> dict[str, Detector]:
    """Detectors by name, with the weights the scenario gives them or the packaged ones."""
    return {name: load_detector(name, scenario.weights_of(name)) for name in names}


def family_with(weights: str, tensors: Tensors) -> Family:
    """A fresh family of the same kind and size as `weights`, carrying `tensors`.

    Its `fresh_parts` are those of the file that nobody has trained since.
    """
    family = load_family(weights)
    untrained = family.tensors(family.fresh_parts)
    family.load(tensors)
    trained = {name.split(".")[0] for name, value in untrained.items() if not np.array_equal(value, tensors[name])}
    family.fresh_parts = tuple(part for part in family.fresh_parts if part not in trained)
    return family
