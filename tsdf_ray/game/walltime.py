"""How long a plan takes: counted passes (`passes.py`) over rates, divided among the workers of each role.

Amdahl by items: a step falls into items (`sharing.py`), the dearest worker's share of them is what it takes; m equal
items are done m / ceil(m / n) times as fast by n workers. What is not divided: an attacker's study and preparation.
Steps are added up as if none overlapped (an evaluator does overlap with the attacker), and exchanges between workers
are left out.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tsdf_ray.crew import shares
from tsdf_ray.game.estimate import CORE_RATE, GPU_RATE, MATCH_START, START, Match, units
from tsdf_ray.game.layout import Worker
from tsdf_ray.game.passes import match_lines
from tsdf_ray.game.plan import Plan
from tsdf_ray.game.sharing import items
from tsdf_ray.game.units import GENERATORS
from tsdf_ray.scenario import Scenario

ROLE_OF = {
    "learn": "defender",
    "publish": "defender",
    "study": "attacker",
    "prepare": "attacker",
    "retrain": "attacker",
    "evaluate": "evaluator",
}
"""Which role makes which step of `passes.Line`."""


UNDIVIDED = {"study", "prepare"}


@dataclass(frozen=True)
class Rates:
    """GFLOP/s of one worker, by step; `stated` for a step of which none was measured."""

    stated: float
    measured: Mapping[str, float]

    def of(self, step: str) -> float:
        """The measured rate, or the stated one."""
        return self.measured.get(step, self.stated)


@dataclass(frozen=True)
class Time:
    """What a scenario takes under a plan, in seconds unless said otherwise."""

    match: float
    """The longest match, or trial."""
    race: float
    steps: Mapping[str, float]
    """Of the longest match, by step."""
    gpu_hours: float
    """GPUs reserved times the time they are."""
    cpu_hours: float
    pieces: int
    """Matches, or trials and baseline matches."""


def stated_rates(scenario: Scenario, plan: Plan) -> Rates:
    """Rates nobody measured here: of CPU cores or GPUs as in `estimate.py`."""
    worker = plan.roles["defender"][0]
    if worker.gpus:
        return Rates(GPU_RATE * min(1.0, scenario.resources.gpus_per_match), {})
    return Rates(CORE_RATE * min(float(scenario.threads), scenario.resources.cpus_per_match), {})


def speedup(count: int, costs: Sequence[float]) -> float:
    """Of `count` workers over items of these costs: 4 equal ones by 3 workers take two rounds, so 2."""
    return sum(costs) / max(sum(costs[n] for n in own) for own in shares(costs, count))


def step_seconds(match: Match, plan: Plan, rates: Rates) -> dict[str, float]:
    """Seconds of all rounds of one match by step. Raises UserError where a cost is not known."""
    scenario, defender, attacker = match
    alone = only(scenario, defender, attacker)
    seconds: dict[str, float] = {}
    lines, models = match_lines(scenario, defender, attacker), dict[str, float]()
    for line in lines:
        if line.step == "learn" and line.model in GENERATORS:
            models[line.model] = models.get(line.model, 0.0) + line.gflop
    for line in lines:
        known = list(models.values()) if line.step == "learn" else []
        work = line.gflop / rates.of(line.step) / divided(alone, line.step, plan.roles[ROLE_OF[line.step]], known)
        seconds[line.step] = seconds.get(line.step, 0.0) + work
    return seconds


def divided(alone: Scenario, step: str, workers: tuple[Worker, ...], models: Sequence[float] = ()) -> float:
    """How many times as fast as one worker the workers make a step of the one match of `alone`.

    models: what each generator of an ensemble costs in it, where they differ.
    """
    if step in UNDIVIDED or len(workers) == 1:
        return 1.0
    count, things = len(workers), items(alone, ROLE_OF[step])
    costs = [1.0] * things
    if len(models) > 1 and things % len(models) == 0:
        costs = [cost for cost in models for _ in range(things // len(models))]
    faster = float(count) if step == "publish" else speedup(count, costs)
    if not workers[0].gpus:
        # On CPUs workers cannot be faster than the cores that the match has.
        faster = min(faster, max(1.0, alone.resources.cpus_per_match / alone.threads))
    return faster


def only(scenario: Scenario, defender: str, attacker: str) -> Scenario:
    """The scenario of one pair."""
    return scenario.model_copy(
        update={
            "defenders": {defender: scenario.defenders[defender]},
            "attackers": {attacker: scenario.attackers[attacker]},
        }
    )


def time_of(scenario: Scenario, plan: Plan, parallel: int, rates: Rates) -> Time:
    """A scenario under a plan, `parallel` matches or trials at once. Raises UserError where a cost is not known."""
    longest, lengths = (0.0, dict[str, float]()), list[tuple[int, float]]()
    for times, matches in units(scenario):
        each = [step_seconds(match, plan, rates) for match in matches]
        seconds = sum(sum(steps.values()) for steps in each)
        lengths.append((times, seconds))
        if seconds > longest[0]:
            longest = seconds, {step: sum(steps.get(step, 0.0) for steps in each) for step in ROLE_OF}
    # The actors of a slot start once and serve match after match.
    race = START + MATCH_START + side_by_side(lengths, parallel)
    total, pieces = sum(times * seconds for times, seconds in lengths), sum(times for times, _ in lengths)
    want = scenario.resources
    gpus = sum(bundle.get("GPU", 0.0) for bundle in plan.bundles) or want.gpus_per_match
    steps = {step: seconds for step, seconds in longest[1].items() if seconds}
    return Time(longest[0], race, steps, gpus * total / 3600, want.cpus_per_match * total / 3600, pieces)


def side_by_side(lengths: Sequence[tuple[int, float]], slots: int) -> float:
    """How long pieces of (times, seconds) take in so many slots, each given to the next piece as it becomes free.

    42 equal ones in 16 slots take three turns. They come as seeds do: one of each kind, then again.
    """
    free = [0.0] * min(slots, sum(times for times, _ in lengths))
    for turn in range(max(times for times, _ in lengths)):
        for seconds in (seconds for times, seconds in lengths if turn < times):
            heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def with_measured(rates: Rates, measured: Mapping[str, float]) -> Rates:
    """The rates that were measured, the stated one for the rest."""
    return replace(rates, measured=dict(measured))
