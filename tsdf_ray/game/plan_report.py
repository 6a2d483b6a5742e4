"""What `tsdf-ray plan` says: who sits where, demand against supply, time, disk, object store. As a dict."""

from __future__ import annotations

import math
from typing import Any

from tsdf_ray.errors import MatchFailed, UserError
from tsdf_ray.game.layout import ROLES
from tsdf_ray.game.needs import needs_of
from tsdf_ray.game.packing import demand, lay, take
from tsdf_ray.game.plan import Plan, Supply, plan, trial_plan
from tsdf_ray.game.probe import Probe, probe
from tsdf_ray.game.sharing import idle
from tsdf_ray.game.sizes import disk, object_peak, weights_of
from tsdf_ray.game.walltime import Rates, stated_rates, time_of, with_measured
from tsdf_ray.scenario import Scenario


def plan_report(scenario: Scenario, supply: Supply, *, measure: bool) -> dict[str, Any]:
    """Everything that can be said before anything starts; `measure`: with a one-batch probe, where weights are at hand.

    Raises UserError, naming the key, when not even one match fits.
    """
    made = plan(scenario, supply)
    parallel = made.parallel_matches if scenario.search is None else trial_plan(scenario, supply).parallel
    piece = "match" if scenario.search is None else "trial"
    report: dict[str, Any] = {
        "scenario": scenario.name,
        "piece": piece,
        "parallel": parallel,
        "strategy": made.strategy,
        "demand": demand(made.bundles, made.strategy),
        "bundles": [{"reserved": dict(bundle), "workers": _inside(made, b)} for b, bundle in enumerate(made.bundles)],
        "nodes": _nodes(made, supply, parallel),
        "notes": _notes(scenario, made, supply),
        "missing": [f"{need.key}: {need.problem}" for need in needs_of(scenario) if need.problem is not None],
    }
    found: Probe | None = None
    if measure and not report["missing"]:
        try:
            found = probe(scenario, gpu=bool(scenario.resources.gpus_per_match))
        except (MatchFailed, UserError) as error:
            report["notes"].append(f"no probe: {error}")
    return report | _costs(scenario, made, parallel, report["nodes"], found)


def _inside(made: Plan, bundle: int) -> list[dict[str, Any]]:
    return [
        {
            "role": role,
            "rank": rank,
            "cpus": worker.cpus,
            "gpus": worker.gpus,
            "memory": worker.memory if worker.gpus else None,
            "takes_turns": worker.shares_device,
        }
        for role in ROLES
        for rank, worker in enumerate(made.roles[role])
        if worker.bundle == bundle
    ]


def _nodes(made: Plan, supply: Supply, parallel: int) -> list[dict[str, Any]]:
    """Nodes that are alike, and what all matches at once take of them."""
    left = [dict(node) for node in supply.free]
    for _ in range(parallel):
        for bundle, node in zip(made.bundles, lay(made.bundles, made.strategy, left), strict=True):
            if node is not None:
                take(bundle, left[node])
    kinds: dict[tuple[float, float], dict[str, Any]] = {}
    for (cpus, gpus), rest in zip(supply.machines, left, strict=True):
        kind = kinds.setdefault(
            (cpus, gpus), {"count": 0, "cpus": cpus, "gpus": gpus, "cpus_taken": 0.0, "gpus_taken": 0.0}
        )
        kind["count"] += 1
        kind["cpus_taken"] = round(kind["cpus_taken"] + cpus - rest["CPU"], 4)
        kind["gpus_taken"] = round(kind["gpus_taken"] + gpus - rest["GPU"], 4)
    return list(kinds.values())


def _notes(scenario: Scenario, made: Plan, supply: Supply) -> list[str]:
    want, notes = scenario.resources, idle(scenario)
    used = sum(bundle.get("GPU", 0.0) for bundle in made.bundles)
    if supply.gpus and not want.gpus_per_match:
        notes.append(
            "resources.gpus_per_match: is 0, so no GPU is used; --set resources.gpus_per_match=1 plans with them"
        )
    if used < want.gpus_per_match:
        notes.append(
            f"resources.gpus_per_match: of {want.gpus_per_match:g} the workers use {used:g}, and no more is reserved"
        )
    most = max(len(made.roles[role]) for role in ROLES)
    if most > 1 and not used and want.cpus_per_match < most * scenario.threads:
        notes.append(
            f"resources.cpus_per_match: {most} workers of {scenario.threads} thread(s) at once share "
            f"{want.cpus_per_match:g} CPU(s); raise it to {most * scenario.threads} for their full speed"
        )
    across = made.strategy == "PACK" and len(made.bundles) > 1 and most > 1
    if across:
        notes.append("no node holds a whole match: its groups exchange over the network")
    return notes


def _costs(
    scenario: Scenario, made: Plan, parallel: int, nodes: list[dict[str, Any]], found: Probe | None
) -> dict[str, Any]:
    """Time, disk, object store, and the probe they rest on; each None, with a note, where it cannot be known."""
    costs: dict[str, Any] = {"time": None, "disk": None, "object_store": None, "probe": None, "unknown": []}
    rates = stated_rates(scenario, made)
    source = f"stated: {rates.stated:g} GFLOP/s per worker"
    if found is not None:
        costs["probe"] = _probed(found)
        if (found.device == "cuda") == bool(scenario.resources.gpus_per_match):
            rates = with_measured(rates, found.rates)
            source = f"measured on this machine, {found.machine}"
        else:
            source += f"; the probe ran on another kind of device, {found.machine}"
    try:
        costs["time"] = _timed(scenario, made, parallel, rates) | {"rates": source}
    except UserError as error:
        costs["unknown"].append(f"time: {error}")
    try:
        weights = weights_of(scenario)
        if scenario.search is None:
            costs["disk"] = disk(scenario, weights)
        else:
            costs["unknown"].append("disk: of a search it depends on which trials are stopped early")
        factor = found.correction if found else 1.0
        busiest = math.ceil(parallel / max(1, sum(node["count"] for node in nodes if node["cpus_taken"])))
        costs["object_store"] = {
            "driver": round(object_peak(scenario, weights, parallel) * factor),
            "node": round(object_peak(scenario, weights, busiest) * factor),
            "measured_over_counted": round(factor, 3) if found else None,
            "weights": weights.whole,
        }
    except UserError as error:
        costs["unknown"].append(f"disk and object store: {error}")
    return costs


def _timed(scenario: Scenario, made: Plan, parallel: int, rates: Rates) -> dict[str, Any]:
    time = time_of(scenario, made, parallel, rates)
    return {
        "pieces": time.pieces,
        "longest_seconds": round(time.match, 1),
        "steps_seconds": {step: round(seconds, 1) for step, seconds in time.steps.items()},
        "race_seconds": round(time.race, 1),
        "gpu_hours": float(f"{time.gpu_hours:.4g}"),
        "cpu_hours": float(f"{time.cpu_hours:.4g}"),
    }


def _probed(found: Probe) -> dict[str, Any]:
    return {
        "match": found.match,
        "machine": found.machine,
        "seconds": round(found.seconds, 1),
        "passes": {
            step: {"photos": found.photos[step], "seconds": round(_seconds(found, step), 3), "gflops": round(rate, 1)}
            for step, rate in found.rates.items()
        },
        "peak_bytes": found.peak_bytes,
        "gpu_bytes": found.gpu_bytes,
        "passed_bytes": found.passed,
    }


def _seconds(found: Probe, step: str) -> float:
    return found.steps["before"] + found.steps["after"] if step == "evaluate" else found.steps[step]
