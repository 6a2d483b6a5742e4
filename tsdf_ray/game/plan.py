"""Who runs where: a plain function of scenario and resources, that refuses what cannot fit before anything starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tsdf_ray.errors import UserError
from tsdf_ray.scenario import Scenario

ROLES = ("defender", "attacker", "evaluator")


@dataclass(frozen=True)
class Supply:
    """What a machine or cluster has."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Plan:
    """Resources of each role of a match, and how many matches play side by side."""

    cpus_per_role: float
    gpus_per_role: float
    parallel_matches: int


def plan(scenario: Scenario, supply: Supply) -> Plan:
    """The roles of a match share its CPUs and its GPU equally; as many matches run at once as fit.

    Raises UserError, with demand and supply, when not even one match fits: a placement that cannot be satisfied would
    wait for ever without an error.
    """
    want = scenario.resources
    if want.cpus_per_match > supply.cpus:
        raise UserError(f"resources.cpus_per_match: {want.cpus_per_match:g} asked for, {supply.cpus:g} exist; lower it")
    if want.gpus_per_match > supply.gpus:
        raise UserError(
            f"resources.gpus_per_match: {want.gpus_per_match:g} asked for, {supply.gpus:g} exist; "
            "lower it, or 0 to play on CPUs"
        )
    fits = math.floor(supply.cpus / want.cpus_per_match + 1e-9)
    if want.gpus_per_match:
        fits = min(fits, math.floor(supply.gpus / want.gpus_per_match + 1e-9))
    matches = len(scenario.pairs) * len(scenario.seeds)
    parallel = min(fits, matches, want.parallel_matches or matches)
    # Ray keeps resources to four decimals; rounding down keeps the sum of the shares inside the match's.
    share = math.floor(want.cpus_per_match / len(ROLES) * 1e4) / 1e4
    gpu_share = math.floor(want.gpus_per_match / len(ROLES) * 1e4) / 1e4
    return Plan(share, gpu_share, parallel)
