"""What a scenario costs: operations counted from its numbers (`passes`), and time by stated rates."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # kept light: the list of scenarios is shown without torch
    from tsdf_ray.scenario import Scenario
    from tsdf_ray.scenario.search import SearchConfig

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
    if scenario.search is not None:
        return _search_cost(scenario, scenario.search)
    costs = _match_costs(scenario)
    return _cost(scenario, costs * len(scenario.seeds), scenario.resources.parallel_matches)


def _search_cost(scenario: Scenario, search: SearchConfig) -> Cost:
    """Trials are not divided: their matches play one after another. Of settings that cost more or less: the base's."""
    from tsdf_ray.scenario.search_trials import baseline_sides, trial_content, trial_sides

    def played(sides: tuple[list[str], list[str]]) -> list[float]:
        defenders, attackers = sides
        seeds = search.seeds or scenario.seeds
        game = trial_content(
            scenario, {}, name="trial", defenders=defenders, attackers=attackers, seeds=seeds, held_out_use="rest"
        )
        return _match_costs(game) * len(seeds)

    units = [sum(played(trial_sides(scenario)))] * search.trials
    for sides in baseline_sides(scenario):
        units += played(sides)
    return _cost(scenario, units, search.parallel)


def _match_costs(scenario: Scenario) -> list[float]:
    from tsdf_ray.game.passes import match_lines

    return [sum(line.gflop for line in match_lines(scenario, *pair)) for pair in scenario.pairs]


def _cost(scenario: Scenario, units: list[float], parallel: int | None) -> Cost:
    wants = scenario.resources
    cores = min(wants.cpus_per_match, float(scenario.threads))
    return Cost(sum(units), max(units), len(units), cores, wants.cpus_per_match, wants.gpus_per_match, parallel)


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
