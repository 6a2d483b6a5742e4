"""How large a run becomes: on disk, and in the object store while it is played. Counted from the real shapes.

An upper count: every photo is usable, every file is as large as its arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

from tsdf_ray.game.passes import match_lines
from tsdf_ray.generators import load_family
from tsdf_ray.scenario import Scenario

KEPT = 2
"""Checkpoints of a match that stay (store/recorder.py; a test holds both equal)."""
ROW_BYTES = 60
"""Of the rows of one judged forgery in a Parquet part: 25 to 53 were measured on packaged scenarios."""
SEEDS = 8
"""Seeds whose photos stay in the object store (actors/executor.py; a test holds both equal)."""
REPORT_BYTES = 700_000
"""Of figures and page, for one pair: 500,000 to 650,000 were measured."""
PICTURES = 6
"""Of every sample (docs/run-directory.md)."""


@dataclass(frozen=True)
class Weights:
    """Bytes of the attackers' generator."""

    whole: int
    """All parts: generator, discriminator and others."""
    generator: int
    """The part that forges."""


def weights_of(scenario: Scenario) -> Weights:
    """Raises UserError: the file is missing or damaged."""
    tensors = load_family(scenario.generator).tensors()
    return Weights(
        sum(array.nbytes for array in tensors.values()),
        sum(array.nbytes for name, array in tensors.items() if name.startswith("generator.")),
    )


def _photo(scenario: Scenario) -> int:
    return 3 * scenario.faces.size**2


def _pool(scenario: Scenario, attacker: str, round: int) -> int:
    """What a cumulative attacker carries on after a round."""
    collect = scenario.attackers[attacker].collect
    return round * collect.photos * _photo(scenario) if collect.pool == "cumulative" else 0


def disk(scenario: Scenario, weights: Weights) -> dict[str, int]:
    """Bytes of a race's run directory by folder, when all matches are played. Raises UserError: a cost not known."""
    photo, rounds, seeds = _photo(scenario), scenario.rounds, len(scenario.seeds)
    found = dict.fromkeys(("checkpoints", "perturbations", "samples", "parts"), 0)
    for defender, attacker in scenario.pairs:
        kept = range(max(1, rounds - KEPT + 1), rounds + 1)
        found["checkpoints"] += sum(weights.whole + _pool(scenario, attacker, r) for r in kept)
        # w as float32, and which photos are poisoned as uint8 of the same shape.
        found["perturbations"] += rounds * photo * (scenario.faces.counts.evaluation + 4 + 1)
        found["samples"] += rounds * photo * PICTURES * scenario.evaluation.samples
        found["parts"] += ROW_BYTES * _judged(scenario, defender, attacker)
    found = {name: size * seeds for name, size in found.items()}
    return found | {"tables": found["parts"], "report": REPORT_BYTES * len(scenario.pairs)}


def _judged(scenario: Scenario, defender: str, attacker: str) -> int:
    return sum(line.photos for line in match_lines(scenario, defender, attacker) if line.what == "judge")


def shared_objects(scenario: Scenario, weights: Weights) -> dict[str, int]:
    """Bytes that the matches of one seed have in common: they enter the object store once, and every node once."""
    counts = scenario.faces.counts
    photos = _photo(scenario) * (counts.defender + counts.attacker + counts.evaluation)
    return {"photos": photos, "weights": weights.whole}


def objects(scenario: Scenario, weights: Weights, defender: str, attacker: str) -> dict[str, int]:
    """Bytes that one match keeps in the object store in its last round, by what they are."""
    photo, counts = _photo(scenario), scenario.faces.counts
    entry = scenario.attackers[attacker]
    shares = [share for share in scenario.evaluation.decay if 0 < share < 1]
    inner = len(shares) if entry.retrain.mode != "none" else 0
    earlier = scenario.rounds - 1
    return {
        "generator": weights.whole,
        "learned": 5 * photo,
        "published": photo * (entry.collect.photos + counts.evaluation),
        "prepared": photo * entry.collect.photos,
        "retrained": weights.whole + inner * weights.generator,
        "earlier rounds": photo * counts.evaluation * earlier + _pool(scenario, attacker, earlier),
        "measured": PICTURES * photo * scenario.evaluation.samples
        + ROW_BYTES * _judged(scenario, defender, attacker) // scenario.rounds,
    }


def object_peak(scenario: Scenario, weights: Weights, matches: int) -> int:
    """Of a node that plays, or whose driver gathers, so many matches at once: what seeds share, and the results of as
    many matches as the one that keeps most."""
    shared = sum(shared_objects(scenario, weights).values()) * min(len(scenario.seeds), SEEDS, matches)
    return shared + matches * max(sum(objects(scenario, weights, *pair).values()) for pair in scenario.pairs)
