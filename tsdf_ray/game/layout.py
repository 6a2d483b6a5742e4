"""Who sits where within one match: workers to seats, seats to bundles. Pure arithmetic; `plan.py` counts how many fit.

A seat is one GPU, or a part of one, or a share of the match's CPUs. In a round the defender works, then the attacker;
the evaluator overlaps with the attacker. So defender and attacker, and defender and evaluator, can take turns on a
seat; attacker and evaluator on one seat divide its memory. A role with several workers has one on each of its seats,
and these are whole GPUs: NCCL refuses two ranks on one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tsdf_ray.errors import UserError
from tsdf_ray.scenario import Resources

ROLES = ("defender", "attacker", "evaluator")
OVERLAP = {"attacker": 0.75, "evaluator": 0.25}
"""How the two that overlap divide the memory of a seat they share."""
ALLOCATED = 0.9
"""Of a GPU with several processes, what their allocators may take: every process has a CUDA context beside it."""


@dataclass(frozen=True)
class Worker:
    """What one worker of a role takes, and from which of the match's bundles."""

    cpus: float
    gpus: float
    """In Ray's books: the seats of a GPU add up to no more than its bundle has."""
    bundle: int = 0
    memory: float = 1.0
    """Share of its GPU's memory it may take."""
    shares_device: bool = False
    """Another role takes turns on its GPU."""


@dataclass(frozen=True)
class Seat:
    """The roles on one GPU or part of it (`gpus`), and the CPUs they share."""

    roles: tuple[str, ...]
    cpus: float
    gpus: float

    def worker(self, role: str, bundle: int) -> Worker:
        """The worker of one of its roles."""
        share = len(self.roles)
        alone = self.gpus in {0.0, 1.0} and share == 1
        rivals = sum(OVERLAP[name] for name in self.roles if name in OVERLAP) if role in OVERLAP else 1.0
        memory = 1.0 if alone or not self.gpus else ALLOCATED * self.gpus * OVERLAP.get(role, 1.0) / rivals
        turns = self.gpus > 0 and share > 1 and "defender" in self.roles
        return Worker(
            four_decimals(self.cpus / share), four_decimals(self.gpus / share), bundle, four_decimals(memory), turns
        )


@dataclass(frozen=True)
class Layout:
    """Seats, bundle by bundle, and how bundles lie over nodes."""

    parts: tuple[tuple[Seat, ...], ...]
    strategy: str
    bundles: tuple[dict[str, float], ...] = field(init=False)

    def __post_init__(self) -> None:
        bundles = tuple(_bundle(part) for part in self.parts)
        object.__setattr__(self, "bundles", bundles)

    @property
    def roles(self) -> dict[str, tuple[Worker, ...]]:
        """The workers of each role, in the order of the seats."""
        return {
            role: tuple(
                seat.worker(role, bundle)
                for bundle, part in enumerate(self.parts)
                for seat in part
                if role in seat.roles
            )
            for role in ROLES
        }


def _bundle(seats: Sequence[Seat]) -> dict[str, float]:
    gpus = four_decimals(sum(seat.gpus for seat in seats))
    return {"CPU": four_decimals(sum(seat.cpus for seat in seats))} | ({"GPU": gpus} if gpus else {})


def four_decimals(amount: float) -> float:
    """What Ray keeps of an amount; rounded down, so that shares never add up to more than the whole."""
    return math.floor(amount * 1e4 + 1e-6) / 1e4


def colocated(want: Resources) -> Layout:
    """One bundle per seat, as near to each other as nodes allow (the strategy is `PACK`; a group that fits on a node
    is better off with `STRICT_PACK`).

    Raises UserError when a role has more workers than the match has GPUs.
    """
    counts, gpus = _counts(want), want.gpus_per_match
    for role, count in counts.items():
        if gpus and count > max(gpus, 1):
            raise UserError(
                f"resources.workers.{role}: {count} workers need a whole GPU each, resources.gpus_per_match is "
                f"{gpus:g}; raise it to {max(counts.values())}, or lower the workers"
            )
    seats = _seats(counts, int(gpus) if gpus >= 1 else None)
    each = want.cpus_per_match / len(seats)
    return Layout(tuple((Seat(roles, each, min(gpus, 1.0)),) for roles in seats), "PACK")


def _seats(counts: dict[str, int], gpus: int | None) -> list[tuple[str, ...]]:
    """Roles by seat. On CPUs and parts of a GPU (None) worker i of every role sits on seat i."""
    defenders, attackers, evaluators = counts.values()
    if gpus is None:
        return [tuple(r for r in ROLES if seat < counts[r]) for seat in range(max(counts.values()))]
    turns = gpus < defenders + attackers
    attack = range(attackers) if turns else range(defenders, defenders + attackers)
    # The evaluator: a GPU of its own where one is left, else a defender's, else an attacker's.
    by_ease = sorted(range(gpus), key=lambda seat: (seat in attack, seat < defenders, -seat if turns else seat))
    judged = by_ease[:evaluators]
    held = {"defender": range(defenders), "attacker": attack, "evaluator": judged}
    seats = [tuple(role for role in ROLES if seat in held[role]) for seat in range(gpus)]
    return [seat for seat in seats if seat]


def spread(want: Resources, parts: int) -> Layout:
    """Defender and evaluator on some nodes, the attacker on others; each side in at most `parts` bundles, each on a
    node of its own.

    Raises UserError when the GPUs do not go round.
    """
    counts, gpus = _counts(want), want.gpus_per_match
    sides = _sides(counts, gpus)
    share = 1.0 if gpus > 1 else gpus / 2
    bundles: list[tuple[Seat, ...]] = []
    for side in sides:
        each = want.cpus_per_match / len(sides) / len(side)
        seats = [Seat(roles, each, share) for roles in side]
        pieces = min(parts, len(seats))
        cuts = [len(seats) * i // pieces for i in range(pieces + 1)]
        bundles += [tuple(seats[a:b]) for a, b in itertools.pairwise(cuts)]
    return Layout(tuple(bundles), "STRICT_SPREAD")


def _sides(counts: dict[str, int], gpus: float) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    defenders, attackers, evaluators = counts.values()
    attack: list[tuple[str, ...]] = [("attacker",)] * attackers
    if not gpus:
        return _seats(counts | {"attacker": 0}, None), attack
    if gpus <= 1:
        for role, count in counts.items():
            if count > 1:
                raise UserError(
                    f"resources.workers.{role}: {count} workers need a whole GPU each, resources.gpus_per_match is "
                    f"{gpus:g}; raise it to {defenders + attackers}, or use one worker"
                )
        if gpus < 0.5:
            raise UserError(
                f"resources.gpus_per_match: {gpus:g} leaves an eighth of a GPU on each node with resources.placement "
                "spread, and shares are at least 1/4; raise it to 0.5, or use colocated"
            )
        return [("defender", "evaluator")], attack
    spare = int(gpus) - defenders - attackers
    if spare < 0:
        raise UserError(
            f"resources.gpus_per_match: {gpus:g} are too few for {defenders} of the defender and {attackers} of the "
            f"attacker that do not take turns (resources.placement spread); raise it to {defenders + attackers}"
        )
    if evaluators <= spare:
        return [*[("defender",)] * defenders, *[("evaluator",)] * evaluators], attack
    if evaluators > 1:
        raise UserError(
            f"resources.workers.evaluator: {evaluators} workers need GPUs of their own (resources.placement spread); "
            f"raise resources.gpus_per_match to {defenders + attackers + evaluators}, or use one worker"
        )
    # Ray cannot be told which of a bundle's GPUs an actor gets, but two halves go to one.
    return [("defender", "evaluator"), *[("defender",)] * (defenders - 1)], attack


def _counts(want: Resources) -> dict[str, int]:
    return {role: int(getattr(want.workers, role)) for role in ROLES}
