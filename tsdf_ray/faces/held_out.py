"""People kept from a search, so that its winners can be judged on faces that it never saw in any role."""

from __future__ import annotations

from collections.abc import Sequence

from tsdf_ray.faces.source import Index
from tsdf_ray.randomness import seed_for

JUDGED = ("evaluation", None)
"""Splits whose people can be judged on: the given one, and photos that are still to be divided among all roles."""


def held_out_people(index: Index, person: Sequence[str], share: float) -> frozenset[str]:
    """About `share` of the people who can be judged on; `person` has one entry per photo of `index`.

    It depends on the data alone, not on a run's seed, and neither on labels: runs with other seeds, or with a generator
    of other attributes, hold out the same people.
    """
    people = {name for name, split in zip(person, index.splits, strict=True) if split in JUDGED}
    ranked = sorted(people, key=lambda name: (seed_for(0, "faces", "held_out", name), name))
    return frozenset(ranked[: int(share * len(ranked) + 0.5)])
