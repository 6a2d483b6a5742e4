"""Who runs where: a plain function of scenario and resources, that refuses what cannot fit before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

from tsdf_ray.errors import UserError
from tsdf_ray.game.layout import ROLES, Layout, Worker, colocated, spread
from tsdf_ray.game.packing import Bundle, demand, fits, kinds, slots, together
from tsdf_ray.game.sharing import refuse_idle_groups
from tsdf_ray.game.waiting import missing
from tsdf_ray.scenario import Resources, Scenario


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

    @property
    def free(self) -> list[Bundle]:
        """Every node by resource, as bundles are laid on it."""
        return [{"CPU": cpus, "GPU": gpus} for cpus, gpus in self.machines]


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
    """The roles of a match share its CPUs and GPUs (`layout.py`); as many matches run at once as fit, node by node.

    Raises UserError, with demand and supply, when not even one match fits: a placement that cannot be satisfied would
    wait for ever without an error.
    """
    want = scenario.resources
    layout = _layout(scenario, supply, "match")
    matches = len(scenario.pairs) * len(scenario.seeds)
    most = min(matches, want.parallel_matches or matches)
    parallel = slots(layout.bundles, layout.strategy, supply.free, most)
    return Plan(layout.roles, parallel, layout.bundles, layout.strategy, want.wait_seconds, want.step_seconds)


def _layout(scenario: Scenario, supply: Supply, what: str) -> Layout:
    """The layout of which at least one fits. Raises UserError, with demand and supply, when there is none."""
    want = scenario.resources
    _refuse_what_exists_nowhere(want, supply)
    refuse_idle_groups(scenario)
    if want.placement == "colocated":
        layout = colocated(want)
        grouped = any(len(workers) > 1 for workers in layout.roles.values())
        if grouped and any(fits(together(layout.bundles), node) for node in supply.free):
            # A group exchanges gradients in every step: its links must not cross nodes where they need not.
            layout = Layout(layout.parts, "STRICT_PACK")
    else:
        layout = spread(want, 1)
        for parts in count(2):
            finer = spread(want, parts)
            if slots(layout.bundles, layout.strategy, supply.free, 1) or finer.bundles == layout.bundles:
                break
            layout = finer
        if not slots(layout.bundles, layout.strategy, supply.free, 1):
            layout = spread(want, 1)
    if not all(any(bundle.values()) for bundle in layout.bundles):
        # Ray refuses to reserve nothing, and where a match takes nothing any number would fit.
        raise UserError(
            f"resources.cpus_per_match: {want.cpus_per_match:g} leaves nothing for each of {len(layout.bundles)} "
            "place(s) of a match, of which Ray counts in steps of 0.0001; raise it"
        )
    if not slots(layout.bundles, layout.strategy, supply.free, 1):
        raise _fits_nowhere(want, layout, supply, what)
    return layout


def _fits_nowhere(want: Resources, layout: Layout, supply: Supply, what: str) -> UserError:
    lack = missing(layout.bundles, layout.strategy, supply.free)
    if "node" in lack and want.placement == "spread":
        key, remedy = "resources.placement", "use colocated, or add nodes"
    elif "GPU" in lack:
        key, remedy = "resources.gpus_per_match", "lower it, or add GPUs to nodes that have CPUs"
    else:
        key, remedy = "resources.cpus_per_match", "lower it"
    return UserError(
        f"{key}: a {what} needs {demand(layout.bundles, layout.strategy)}, each bracket on one node; there are: "
        f"{kinds(supply.free)}: missing {lack}; {remedy}"
    )


@dataclass(frozen=True)
class TrialPlan:
    """Resources of each trial of a search, and how many trials play side by side."""

    bundles: tuple[Bundle, ...]
    """What has to be reserved together: the trial's own process first. Where roles are actors that takes nothing, and
    the rest are the bundles of a match."""
    roles: Plan | None
    """Of the roles, where they are actors: their bundles are counted from the second of the trial's. None: they live in
    the trial's process."""
    parallel: int
    strategy: str = "PACK"
    """How bundles lie over nodes."""


def trial_plan(scenario: Scenario, supply: Supply) -> TrialPlan:
    """A trial plays its matches one after another, so it takes what one match takes.

    All it will ever need is reserved before it starts: it cannot wait for its own actors. Raises UserError, with demand
    and supply, when not even one trial fits.
    """
    assert scenario.search is not None, "only a scenario with a search has trials"
    want, search = scenario.resources, scenario.search
    layout = _layout(scenario, supply, "trial")
    parallel = slots(layout.bundles, layout.strategy, supply.free, min(search.trials, search.parallel or search.trials))
    if not want.gpus_per_match and len(layout.bundles) == 1:
        return TrialPlan(layout.bundles, None, parallel)
    roles = Plan(layout.roles, 1, (), layout.strategy, want.wait_seconds, want.step_seconds)
    return TrialPlan(({}, *layout.bundles), roles, parallel, layout.strategy)


def _refuse_what_exists_nowhere(want: Resources, supply: Supply) -> None:
    if want.cpus_per_match > supply.cpus:
        raise UserError(f"resources.cpus_per_match: {want.cpus_per_match:g} asked for, {supply.cpus:g} exist; lower it")
    if want.gpus_per_match > supply.gpus:
        raise UserError(
            f"resources.gpus_per_match: {want.gpus_per_match:g} asked for, {supply.gpus:g} exist; "
            "lower it, or 0 to play on CPUs"
        )


__all__ = ["ROLES", "Plan", "Supply", "TrialPlan", "Worker", "plan", "trial_plan"]
