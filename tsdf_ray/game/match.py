"""The game: one match, round by round. No mathematics and no Ray here; the executor says where a role's step runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from tsdf_ray.game.control import Progress
from tsdf_ray.game.evaluator import EvaluatorRole
from tsdf_ray.game.executor import Executor, Handle
from tsdf_ray.game.materials import Materials
from tsdf_ray.game.players import AttackerRole, DefenderRole
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.game.steps import RoundResult, Standing


class Recorder(Protocol):
    """What the loop needs of the store: where a match stands, and a place for each finished round."""

    def standing(self, match: MatchSpec, materials: Materials) -> Standing: ...
    def record(self, match: MatchSpec, result: RoundResult) -> None: ...


@dataclass(frozen=True)
class Cast:
    """Who plays the three roles."""

    defender: type = DefenderRole
    attacker: type = AttackerRole
    evaluator: type = EvaluatorRole


@dataclass(frozen=True)
class Table:
    """Everything a match is played with."""

    executor: Executor
    recorder: Recorder
    control: Progress
    cast: Cast = Cast()

    def submit(self, match: MatchSpec, round: int, role: Handle, step: str, *args: Handle) -> Handle:
        """Hand a step to the executor, unless the user asked to stop."""
        self.control.check()
        self.control.phase(match, round, step)
        return self.executor.submit(role, step, round, *args)


def play_match(match: MatchSpec, materials: Materials, table: Table) -> None:
    """Play the rounds that are still missing. Raises MatchFailed (NaN, ...) and Stopped (the user asked)."""
    for _ in play_rounds(match, materials, table):
        pass


def play_rounds(match: MatchSpec, materials: Materials, table: Table) -> Iterator[int]:
    """The same, round by round: yields the number of each round that is on disk. Closing it ends the roles.

    A step is `submit`ted and may run while others do; passing its handle on hands its result to the next step without
    a detour through here. Steps are idempotent: they depend on their arguments and named seeds alone.
    """
    executor, control, cast = table.executor, table.control, table.cast
    standing = table.recorder.standing(match, materials)
    if standing.round == match.rounds:
        return
    shared = executor.share(materials, lasting=True)
    defender = executor.start(cast.defender, match, shared, control.check)
    attacker = executor.start(cast.attacker, match, shared, control.check)
    evaluator = executor.start(cast.evaluator, match, shared, control.check)
    try:
        # G_0 is every match's, and enters the object store once.
        generator = executor.share(standing.generator, lasting=not standing.round)
        pool: list[Handle] = [executor.share(photos) for photos in standing.pool]
        published: list[Handle] = [executor.share(photos) for photos in standing.published]

        for r in range(standing.round + 1, match.rounds + 1):
            step = partial(table.submit, match, r)
            # What a defender may not know never reaches its process.
            shown = generator if match.shows_last_round else None
            learned = step(defender, "learn", shown)
            protected = step(defender, "publish", learned, shown)
            studied = step(attacker, "study", protected)
            before = step(evaluator, "before", generator, protected, studied)
            prepared = step(attacker, "prepare", protected, studied)
            retrained = step(attacker, "retrain", generator, prepared, *pool)
            after = step(evaluator, "after", generator, retrained, prepared, protected, studied, *published)
            steps = {"learn": learned, "publish": protected, "study": studied, "prepare": prepared}
            steps |= {"before": before, "retrain": retrained, "after": after}

            outcome = {}
            for name, handle in steps.items():
                control.phase(match, r, name)
                outcome[name] = executor.gather(handle, control.check)
            result = RoundResult.of(match, r, outcome)
            table.recorder.record(match, result)
            control.phase(match, r, "done")
            yield r
            if r == match.rounds:
                return
            generator = executor.share(result.generator)
            published.append(executor.share(result.published))
            pool = [*pool, executor.share(result.usable)] if match.cumulative else []
    finally:
        executor.stop(defender, attacker, evaluator)
