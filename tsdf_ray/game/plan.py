"""Who runs where: a plain function of scenario and resources, that refuses what cannot fit before anything starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tsdf_ray.errors import UserError
from tsdf_ray.scenario import Resources, Scenario

ROLES = ("defender", "attacker", "evaluator")


@dataclass(frozen=True)
class Supply:
    """What a machine or cluster has."""

    cpus: float
    gpus: float
    nodes: tuple[tuple[float, float], ...] = ()
    """(CPUs, GPUs) of each node; none: one machine that has it all."""

    @property
    def machines(self) -> tuple[tuple[float, float], ...]:
        """(CPUs, GPUs) of every node."""
        return self.nodes or ((self.cpus, self.gpus),)


@dataclass(frozen=True)
class Worker:
    """What one worker of a role takes, and from which of the match's bundles."""

    cpus: float
    gpus: float
    bundle: int = 0
    memory: float = 1.0
    """Share of its GPU's memory it may take."""
    shares_device: bool = False
    """Another role takes turns on its GPU."""


@dataclass(frozen=True)
class Plan:
    """Where the roles of a match run, and how many matches play side by side."""

    roles: Mapping[str, tuple[Worker, ...]]
    """The workers of each role, by name (`ROLES`); the first answers the match."""
    parallel_matches: int
    bundles: tuple[Mapping[str, float], ...] = ()
    """What is reserved together for a match, each on one node: CPU and GPU. None: nothing is reserved."""
    strategy: str = "PACK"
    """How bundles lie over nodes: PACK, STRICT_PACK, SPREAD or STRICT_SPREAD."""
    wait_seconds: float = 600.0
    """Longest wait for the bundles."""
    step_seconds: float | None = None
    """A step that takes longer counts as hung."""


def plan(scenario: Scenario, supply: Supply) -> Plan:
    """The roles of a match share its CPUs and its GPU equally; as many matches run at once as fit.

    Raises UserError, with demand and supply, when not even one match fits: a placement that cannot be satisfied would
    wait for ever without an error.
    """
    want = scenario.resources
    _refuse_what_exists_nowhere(want, supply)
    fits = math.floor(supply.cpus / want.cpus_per_match + 1e-9)
    if want.gpus_per_match:
        fits = min(fits, math.floor(supply.gpus / want.gpus_per_match + 1e-9))
    matches = len(scenario.pairs) * len(scenario.seeds)
    parallel = min(fits, matches, want.parallel_matches or matches)
    bundle = {"CPU": want.cpus_per_match} | ({"GPU": want.gpus_per_match} if want.gpus_per_match else {})
    return Plan(_roles(want), parallel, (bundle,), "PACK", want.wait_seconds, want.step_seconds)


def _roles(want: Resources) -> dict[str, tuple[Worker, ...]]:
    one = Worker(_share(want.cpus_per_match), _gpu_share(want.gpus_per_match))
    return dict.fromkeys(ROLES, (one,))


@dataclass(frozen=True)
class TrialPlan:
    """Resources of each trial of a search, and how many trials play side by side."""

    bundles: tuple[dict[str, float], ...]
    """What has to be reserved together: the trial's own process first. With GPUs that takes nothing, and the three
    roles are actors of their own."""
    roles: Plan | None
    """Of the roles, where they are actors; None: they live in the trial's process."""
    parallel: int


def trial_plan(scenario: Scenario, supply: Supply) -> TrialPlan:
    """A trial plays its matches one after another, so it takes what one match takes.

    All it will ever need is reserved before it starts: it cannot wait for its own actors. Raises UserError, with demand
    and supply, when not even one trial fits.
    """
    assert scenario.search is not None, "only a scenario with a search has trials"
    want = scenario.resources
    _refuse_what_exists_nowhere(want, supply)
    if not want.gpus_per_match:
        bundles: tuple[dict[str, float], ...] = ({"CPU": want.cpus_per_match},)
        roles, whole = None, (want.cpus_per_match, 0.0)
    else:
        roles = Plan(_roles(want), 1)
        whole = roles.roles[ROLES[0]][0].cpus, roles.roles[ROLES[0]][0].gpus
        bundles = ({}, *({"CPU": whole[0], "GPU": whole[1]} for _ in ROLES))
    needed = sum(bool(bundle) for bundle in bundles)
    slots = sum(min(math.floor(cpus / whole[0] + 1e-9), _gpu_slots(gpus, whole[1])) for cpus, gpus in supply.machines)
    if slots < needed:
        nodes = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in supply.machines)
        raise UserError(
            f"resources: a trial needs {needed} x ({whole[0]:g} CPUs, {whole[1]:g} GPUs), each on one machine; there "
            f"are: {nodes}; lower resources.cpus_per_match or resources.gpus_per_match"
        )
    search = scenario.search
    return TrialPlan(bundles, roles, min(slots // needed, search.trials, search.parallel or search.trials))


def _refuse_what_exists_nowhere(want: Resources, supply: Supply) -> None:
    if want.cpus_per_match > supply.cpus:
        raise UserError(f"resources.cpus_per_match: {want.cpus_per_match:g} asked for, {supply.cpus:g} exist; lower it")
    if want.gpus_per_match > supply.gpus:
        raise UserError(
            f"resources.gpus_per_match: {want.gpus_per_match:g} asked for, {supply.gpus:g} exist; "
            "lower it, or 0 to play on CPUs"
        )


def _share(whole: float) -> float:
    """Of one role. Ray keeps resources to four decimals; rounding down keeps the sum inside the match's."""
    return math.floor(whole / len(ROLES) * 1e4) / 1e4


def _gpu_share(whole: float) -> float:
    """Of one role. Ray gives a part of one GPU, or whole ones: two thirds fit thrice on no two GPUs, and four thirds
    are refused."""
    if whole <= 1:
        return _share(whole)
    return 0.5 if whole == 2 else float(whole // len(ROLES))


def _gpu_slots(gpus: float, share: float) -> int:
    """How many roles with such a share a machine's GPUs take; 0 GPUs asked for: any number."""
    if share == 0:
        return 10**9
    return math.floor(gpus) * math.floor(1 / share + 1e-9) if share < 1 else math.floor(gpus / share + 1e-9)
