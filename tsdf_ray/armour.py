"""A defence ready to be put on photos outside a game: learned here on the packaged sample, or in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tsdf_ray.defenders import DefenceState, Defender, Knowledge, make_defender
from tsdf_ray.digest import Arrays
from tsdf_ray.errors import UserError
from tsdf_ray.faces import HAIR, FaceSet, to_images
from tsdf_ray.game.materials import (
    all_attributes,
    detectors_with,
    family_with,
    further_families,
    known_family,
    load_materials,
)
from tsdf_ray.generators import Family, Tensors, load_family
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.manifest import Entry, Manifest, check_files
from tsdf_ray.store.recorder import read_tensors
from tsdf_ray.store.rundir import read_info

PACKAGED = "quickstart"
"""The scenario whose defenders, photos and generator `packaged_armour` uses."""


@dataclass(frozen=True)
class Armour:
    """A defence and what it learned, for photos of `size` pixels."""

    defender: Defender
    state: DefenceState
    size: int

    def face_set(self, pixels_BCHW: npt.NDArray[np.uint8], ids: tuple[str, ...]) -> FaceSet:
        """Photos of people nobody labelled: labels are what the generators' own classifiers see, 0 where none does."""
        seen: dict[str, npt.NDArray[np.uint8]] = {}
        for family in self.state.knowledge.generators.values():
            seen = _labels(family, pixels_BCHW) | seen
        attributes = all_attributes(self.state.knowledge.generators.values())
        unseen = np.zeros(len(ids), np.uint8)
        columns = [seen.get(name, unseen) for name in attributes]
        labels_BA = np.stack(columns, 1) if columns else np.zeros((len(ids), 0), np.uint8)
        return FaceSet(pixels_BCHW, labels_BA, attributes, ids)

    def perturb(self, faces: FaceSet) -> torch.Tensor:
        """As `Defender.perturb`: float32 [1 or B, 3, S, S], whole 1/255 steps inside the budget."""
        return self.defender.perturb(self.state, faces)


def _labels(family: Family, pixels_BCHW: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.uint8]]:
    """uint8 [B], 0 or 1, by attribute, as the classifier in the family's loss sees them; empty when it has none."""
    if "classifier" not in family.parts or not len(pixels_BCHW):
        return {}
    with torch.inference_mode():
        logits_BA = family.parts["classifier"](to_images(torch.from_numpy(pixels_BCHW.copy()))).float()
    labels_BA = (logits_BA > 0).numpy().astype(np.uint8)
    hair = [a for a, name in enumerate(family.attributes) if name in HAIR]
    if hair:
        labels_BA[:, hair] = 0
        labels_BA[np.arange(len(labels_BA)), np.asarray(hair)[logits_BA[:, hair].argmax(1).numpy()]] = 1
    return dict(zip(family.attributes, labels_BA.T, strict=True))


def packaged_armour(kind: str, epsilon: float, learned: Arrays | None = None) -> Armour:
    """Learn a defence against the packaged generator G_0 on the packaged sample, or take what it `learned` before.

    Raises UserError as `packaged_defender`.
    """
    scenario = Scenario.load(PACKAGED)
    defender = packaged_defender(scenario, kind, epsilon)
    seed = scenario.seeds[0]
    materials = load_materials(scenario, seed)
    family = family_with(scenario.generator, materials.generator).freeze()
    knowledge = _knowledge(scenario, 1, {family.name: family}, defender, materials.splits.defender)
    state = defender.learn(knowledge) if learned is None else DefenceState(knowledge, learned)
    return Armour(defender, state, scenario.faces.size)


def packaged_defender(scenario: Scenario, kind: str, epsilon: float) -> Defender:
    """A defender of the quickstart as it plays there, any other kind with its defaults; `epsilon` is set.

    Raises UserError for an unknown kind and for an epsilon out of range.
    """
    played = [entry.config for entry in scenario.defenders.values() if entry.kind == kind]
    content: dict[str, Any] = played[0].model_dump(mode="json") if played else {}
    return make_defender(kind, content | {"epsilon": epsilon})


def learned_armour(run: Path, defender: str | None, attacker: str | None, epsilon: float | None) -> Armour:
    """What a run's defender had learned in its last finished round.

    `defender` and `attacker` are names in the run's scenario, needed where it has several; of several seeds the first
    counts. Raises UserError: no run, a name that is not in it, no finished round, a file that was changed.
    """
    read_info(run)
    scenario = Scenario.load(run / "scenario.yaml")
    name = _choose("defender", defender, scenario.defenders, run)
    other = _choose("attacker", attacker, scenario.attackers, run)
    seed = scenario.seeds[0]
    match = f"{name}-vs-{other}-s{seed}"
    entries = Manifest(run / "manifest.jsonl").of(match)
    if not entries:
        raise UserError(f"{run}: {match} has no finished round; `tsdf-ray resume {run}` plays it")
    played, entry = entries[-1], scenario.defenders[name]
    content = entry.config.model_dump(mode="json") | ({} if epsilon is None else {"epsilon": epsilon})
    learned = make_defender(entry.kind, content)
    check_files(run, played, "perturbations/")
    stored, _ = read_tensors(run / _file(played, "perturbations/"))
    tensors = {key.removeprefix("defence."): value for key, value in stored.items() if key.startswith("defence.")}
    initial = load_family(scenario.generator).tensors()
    last = _generator_before(run, entries) or initial if entry.knowledge == "last_round" else None
    family = known_family(scenario, name, initial, last)
    families = {family.name: family, **further_families(entry.generators, family.name)}
    size, attributes = scenario.faces.size, all_attributes(families.values())
    nobody = FaceSet(np.zeros((0, 3, size, size), np.uint8), np.zeros((0, len(attributes)), np.uint8), attributes, ())
    knowledge = _knowledge(scenario, played.round, families, learned, nobody)
    return Armour(learned, DefenceState(knowledge, tensors), size)


def _generator_before(run: Path, entries: list[Entry]) -> Tensors | None:
    """The attacker's generator after the round before the last; None when the last round is the first."""
    if len(entries) == 1:
        return None
    check_files(run, entries[-2], "checkpoints/")
    stored, _ = read_tensors(run / _file(entries[-2], "checkpoints/"))
    return {k.removeprefix("G."): v for k, v in stored.items() if k.startswith("G.")}


def _file(entry: Entry, folder: str) -> str:
    return next(name for name in entry.files if name.startswith(folder))


def _choose(role: str, name: str | None, valid: Mapping[str, object], run: Path) -> str:
    if name is None and len(valid) == 1:
        return next(iter(valid))
    if name is None:
        raise UserError(f"{run}: has several {role}s ({', '.join(valid)}); choose one with --{role}")
    if name not in valid:
        raise UserError(f"{run}: has no {role} {name!r}; it has: {', '.join(valid)}")
    return name


def _knowledge(
    scenario: Scenario, round_: int, families: Mapping[str, Family], defender: Defender, photos: FaceSet
) -> Knowledge:
    detectors = detectors_with(scenario, defender.config.detectors)
    return Knowledge(scenario.seeds[0], round_, families, detectors, photos, scenario.precision)
