"""The players of a match: plain classes whose steps take (round, what they need) and may be issued twice.

They keep models, not results: what matters is in the arguments, and every draw is named. On the cluster each becomes a
Ray actor without a change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tsdf_ray.attackers import Prepared, Retrained, Studied, choose, make_attacker, own_photos
from tsdf_ray.channels import publish
from tsdf_ray.crew import ALONE, Seat
from tsdf_ray.defenders import DefenceState, Knowledge, make_defender
from tsdf_ray.digest import array_digest
from tsdf_ray.faces import FaceSet
from tsdf_ray.game.materials import Materials, detectors_with, family_with, further_families, known_family
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.game.steps import Learned, Published
from tsdf_ray.generators import Tensors, load_family
from tsdf_ray.kept import KEPT


class DefenderRole:
    """Learns a protection from what it may know, and publishes photos under it."""

    def __init__(self, match: MatchSpec, materials: Materials, seat: Seat = ALONE) -> None:
        self._match = match
        self._seat = seat
        self._materials = materials
        entry = match.scenario.defenders[match.defender]
        self._defender = make_defender(entry.kind, entry.config)
        self._detectors = detectors_with(match.scenario, entry.config.detectors)
        own = load_family(match.scenario.generator if entry.surrogate is None else entry.surrogate).name
        self._further = further_families(entry.generators, own)

    def learn(self, round: int, generator: Tensors | None) -> Learned:
        """w_r against what it may know: `generator`, the attacker's G_{r-1}, is given with `last_round` alone."""

        def learn() -> Learned:
            state = self._defender.learn(self._knowledge(round, generator))
            tensors = {name: np.ascontiguousarray(value) for name, value in state.tensors.items()}
            return Learned(tensors, array_digest(tensors))

        return KEPT.get(self._key(round, generator), learn, lambda made: _bytes(made.tensors.values()))

    def publish(self, round: int, learned: Learned, generator: Tensors | None) -> Published:
        """The round's collectable photos (protected as far as `collect.protected` says) and the evaluation split."""
        collect = self._match.scenario.attackers[self._match.attacker].collect
        key = self._key(round, generator) | {"w": learned.digest, "collect": collect.model_dump(mode="json")}
        key |= {"channel": self._match.scenario.publish.model_dump(mode="json")}
        return KEPT.get(
            key,
            lambda: self._publish(round, learned, generator),
            lambda made: _bytes((made.collectable.pixels_BCHW, made.evaluation.pixels_BCHW)),
        )

    def _publish(self, round: int, learned: Learned, generator: Tensors | None) -> Published:
        scenario, splits = self._match.scenario, self._materials.splits
        state = DefenceState(self._knowledge(round, generator), learned.tensors)
        choice = choose(scenario.attackers[self._match.attacker].collect, self._match.seed, round, len(splits.attacker))
        photos = splits.attacker.take(choice.index_N)
        protected = np.flatnonzero(choice.protected_N)
        pixels = photos.pixels_BCHW.copy()
        if len(protected):
            pixels[protected] = self._defender.protect(state, photos.take(protected)).pixels_BCHW
        evaluation = self._defender.protect(state, splits.evaluation)
        channel = scenario.publish
        return Published(publish(photos.with_pixels(pixels), channel), choice.index_N, publish(evaluation, channel))

    def _key(self, round: int, generator: Tensors | None) -> dict[str, Any]:
        """Everything that `learn` depends on."""
        if not KEPT.on:
            return {}
        scenario, splits = self._match.scenario, self._materials.splits
        entry = scenario.defenders[self._match.defender]
        known = self._materials.generator if generator is None else generator
        return {
            "entry": entry.model_dump(mode="json"),
            "generator": [scenario.generator, array_digest(known)],
            "photos": [splits.defender.digest, splits.attacker.digest, splits.evaluation.digest],
            "detectors": scenario.detector_weights,
            "draws": [self._match.seed, round, scenario.precision, scenario.threads],
        }

    def _knowledge(self, round: int, generator: Tensors | None) -> Knowledge:
        scenario = self._match.scenario
        family = known_family(scenario, self._match.defender, self._materials.generator, generator)
        return Knowledge(
            self._match.seed,
            round,
            {family.name: family, **self._further},
            self._detectors,
            self._materials.splits.defender,
            scenario.precision,
            self._seat,
            scenario.micro_batch,
        )


def _bytes(arrays: Iterable[np.ndarray]) -> int:
    return sum(array.nbytes for array in arrays)


class AttackerRole:
    """Studies and prepares what it collected, and retrains on what is left."""

    def __init__(self, match: MatchSpec, materials: Materials, seat: Seat = ALONE) -> None:
        self._match = match
        self._seat = seat
        config = match.scenario.attackers[match.attacker]
        detectors = detectors_with(match.scenario, config.prepare.detectors)
        self._attacker = make_attacker(
            config, match.seed, detectors, match.scenario.evaluation.decay, seat, match.scenario.micro_batch
        )
        split = materials.splits.attacker
        self._own = split.take(own_photos(config.collect, match.seed, len(split)))

    def study(self, round: int, published: Published) -> Studied:
        """What its purification must learn, from its own photos and the published ones."""
        return self._attacker.study(round, self._own, published.collectable)

    def prepare(self, round: int, published: Published, studied: Studied) -> Prepared:
        """Purify, detect, crop, drop."""
        return self._attacker.prepare(round, published.collectable, studied)

    def retrain(self, round: int, generator: Tensors, prepared: Prepared, *earlier: FaceSet) -> Retrained:
        """G_r from G_{r-1} (or from scratch) on this round's usable photos and, where kept, earlier ones."""
        family = family_with(self._match.scenario.generator, generator)
        photos = [photos.select(family.attributes) for photos in (*earlier, prepared.photos)]
        return self._attacker.retrain(round, photos, family)
