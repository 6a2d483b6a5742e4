"""What a scenario costs: operations counted from its numbers (`passes`), and time by stated rates."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # kept light: the list of scenarios is shown without torch
    from tsdf_ray.scenario import Scenario

CORE_RATE = 50.0
"""GFLOP/s of one CPU core with bfloat16 units, all that a step does besides the networks included. Fitted, with
`MATCH_START`, to measured times of packaged scenarios on two cores (docs/weights.md). Other cores may be several times
slower."""
GPU_RATE = 30_000.0
"""GFLOP/s of one GPU: assumed, about a tenth of an A100's bfloat16 peak."""
START = 10.0
"""Seconds for the cluster to start and for the report."""
MATCH_START = 8.0
"""Seconds of one core for the three workers of a match to start."""


@dataclass(frozen=True)
class Cost:
    """Of one race. An upper bound within its means: attackers that are starved train less."""

    gflop: float
    """Of all matches."""
    longest: float
    """GFLOP of the costliest match."""
    matches: int
    cores: float
    """What one match can keep busy."""
    cpus_per_match: float
    gpus_per_match: float
    parallel: int | None
    """Most matches at once, where the scenario limits them."""

    def seconds(self, cpus: int) -> float:
        """On a machine of `cpus` cores; with GPUs: on those one match takes, match after match."""
        if self.gpus_per_match:
            return START + self.gflop / (GPU_RATE * self.gpus_per_match)
        side_by_side = max(1, min(math.floor(cpus / self.cpus_per_match), self.matches, self.parallel or self.matches))
        # No match is divided: the costliest one alone is the least a race can take.
        work = max(self.gflop / side_by_side, self.longest)
        return START + MATCH_START * self.matches / side_by_side + work / (CORE_RATE * min(self.cores, cpus))

    def text(self, cpus: int) -> str:
        """`~6 min on 2 cores`, or `~40 GPU-hours`."""
        if self.gpus_per_match:
            hours = self.seconds(cpus) * self.gpus_per_match / 3600
            return f"~{_round(hours)} GPU-hours" if hours >= 1 else f"~{_round(60 * hours)} GPU-minutes"
        return f"~{span(self.seconds(cpus))} on {cpus} core{'s' if cpus > 1 else ''}"


def estimate(scenario: Scenario) -> Cost:
    """The cost of a race, or of a search: then of all its trials, as if none were stopped early, and of its baselines.

    Raises UserError, saying of what, where a cost is not known (plug-ins, unknown files).
    """
    costs: list[float] = []
    for times, matches in units(scenario):
        costs += [sum(match_gflop(*match) for match in matches)] * times
    wants = scenario.resources
    parallel = wants.parallel_matches if scenario.search is None else scenario.search.parallel
    cores = min(wants.cpus_per_match, float(scenario.threads))
    return Cost(sum(costs), max(costs), len(costs), cores, wants.cpus_per_match, wants.gpus_per_match, parallel)


Match = tuple["Scenario", str, str]
"""Scenario, defender, attacker."""


def units(scenario: Scenario) -> list[tuple[int, list[Match]]]:
    """What is played as one piece, and how many times: matches, or trials whose matches play one after another.

    Of a search: its trials, with the base's settings, and its baselines; the replay is not counted.
    """
    if scenario.search is None:
        return [(len(scenario.seeds), [(scenario, *pair)]) for pair in scenario.pairs]
    from tsdf_ray.scenario.search_trials import baseline_sides, trial_content, trial_sides

    def matches(sides: tuple[list[str], list[str]]) -> list[Match]:
        defenders, attackers = sides
        game = trial_content(
            scenario, {}, name="trial", defenders=defenders, attackers=attackers, seeds=seeds, held_out_use="rest"
        )
        return [(game, *pair) for pair in game.pairs] * len(seeds)

    seeds = scenario.search.seeds or scenario.seeds
    baselines = [(1, [match]) for sides in baseline_sides(scenario) for match in matches(sides)]
    return [(scenario.search.trials, matches(trial_sides(scenario))), *baselines]


def match_gflop(scenario: Scenario, defender: str, attacker: str) -> float:
    """Of all rounds of one match. Raises UserError where a cost is not known."""
    from tsdf_ray.game.passes import match_lines

    return sum(line.gflop for line in match_lines(scenario, defender, attacker))


def machine_cores() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def span(seconds: float) -> str:
    """A length of time, no more precise than an estimate is: `40 s`, `6 min`, `3.5 h`, `12 days`."""
    if seconds < 95:
        return f"{max(10, round(seconds, -1)):.0f} s"
    for unit, name in ((86400, "days"), (3600, "h")):
        if seconds >= 2 * unit:
            return f"{_round(seconds / unit)} {name}"
    return f"{_round(seconds / 60)} min"


def _round(value: float) -> str:
    """Two figures."""
    return f"{float(f'{value:.2g}'):g}" if value < 1e4 else f"{float(f'{value:.2g}'):.0f}"
