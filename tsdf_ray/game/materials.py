"""What all roles of a race share: photos and the generator everyone starts from. Loaded once by the driver, then by
reference (numpy arrays leave the object store without a copy)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tsdf_ray.attackers import check_supply
from tsdf_ray.detectors import Detector, load_detector
from tsdf_ray.detectors.weights import check_at_hand
from tsdf_ray.errors import MatchFailed, UserError
from tsdf_ray.faces import Splits, load_splits
from tsdf_ray.game.needs import generator_weights
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
    if any(attacker.retrain.mode != "none" for attacker in scenario.attackers.values()):
        family.check_training_side(scenario.faces.size, "faces.size")
    others = _others(scenario)
    splits = load_splits(scenario.faces, seed, all_attributes([family, *others]))
    for name, attacker in scenario.attackers.items():
        try:
            check_supply(attacker.collect, scenario.rounds, len(splits.attacker))
        except UserError as error:
            raise UserError(f"attackers.{name}.{error}") from error
    return Materials(splits, family.tensors())


def _others(scenario: Scenario) -> list[Family]:
    """Every generator that is named beside the attackers'. Raises UserError, naming the key of one that cannot be."""
    found: dict[str, Family] = {}
    for where, name in generator_weights(scenario):
        if where == "generator":
            continue
        try:
            if name not in found:
                found[name] = load_family(name)
            found[name].check_side(scenario.faces.size, "faces.size")
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    return list(found.values())


def all_attributes(families: Iterable[Family]) -> tuple[str, ...]:
    """What any of them edits, in order: the labels the photos must carry."""
    return tuple(dict.fromkeys(name for family in families for name in family.attributes))


def further_families(weights: Iterable[str], *taken: str) -> dict[str, Family]:
    """Frozen generators by family name; a name that is taken already gets a number: `stargan`, `stargan-2`."""
    found: dict[str, Family] = {}
    for name in weights:
        family = load_family(name).freeze()
        names = (family.name if n == 1 else f"{family.name}-{n}" for n in itertools.count(1))
        found[next(free for free in names if free not in found and free not in taken)] = family
    return found


def known_family(scenario: Scenario, defender: str, initial: Tensors, last: Tensors | None) -> Family:
    """The attackers' generator (or the surrogate) as a defender may differentiate through it, frozen.

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
