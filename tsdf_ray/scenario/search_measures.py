"""Do the objectives and constraints of a search name what its trials can measure?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tsdf_ray.scenario.keys import did_you_mean
from tsdf_ray.scenario.model import Scenario
from tsdf_ray.scenario.search import Measure, SearchConfig
from tsdf_ray.scenario.search_paths import PLAYERS
from tsdf_ray.scenario.search_trials import Sides
from tsdf_ray.scenario.yamlfile import KeyPath

NETWORKS = {"lpips": "lpips", "identity_similarity": "identity", "identity_similarity_clean": "identity"}
"""Optional metric -> the key of `evaluation` that gives its network."""


def measure_mistakes(scenario: Scenario, search: SearchConfig, sides: Sides | None) -> Iterator[tuple[KeyPath, str]]:
    """(key, what is wrong) of every objective and constraint; `sides` play in a trial, None: not known."""
    for section in ("objectives", "constraints"):
        measures: dict[str, Measure] = getattr(search, section)
        for name, measure in measures.items():
            for key, text in _mistakes(scenario, measure, sides):
                yield ("search", section, name, *key), text
    decides = search.scheduler.objective
    if decides is not None and decides not in search.objectives:
        near = did_you_mean(decides, search.objectives)
        text = f"no objective is called {decides!r}.{near} Objectives: {', '.join(search.objectives)}"
        yield ("search", "scheduler", "objective"), text
        return
    rounds = search.objectives[search.rung_objective].rounds
    if search.scheduler.kind == "asha" and isinstance(rounds, int) and rounds > search.scheduler.grace:
        text = (
            f"asha looks at {search.rung_objective} from round {search.scheduler.grace} on, which needs `rounds`: last"
        )
        yield ("search", "objectives", search.rung_objective, "rounds"), f"{text} or mean, or grace {rounds}"


def _mistakes(scenario: Scenario, measure: Measure, sides: Sides | None) -> Iterator[tuple[KeyPath, str]]:
    unknown = False
    for side, played in zip(PLAYERS, sides or ([], []), strict=True):
        there: dict[str, object] = getattr(scenario, side)
        for at, name in enumerate(getattr(measure, side)):
            if name not in there:
                unknown = True
                near = did_you_mean(name, there)
                yield (side, at), f"no {side[:-1]} is called {name!r}.{near} Valid names: {', '.join(there)}"
            elif sides is not None and name not in played:
                text = f"{name} does not play in a trial: parameters touch other {side} alone"
                yield (side, at), f"{text}. In a trial: {', '.join(played)}"
    if isinstance(measure.rounds, int) and measure.rounds > scenario.rounds:
        yield ("rounds",), f"round {measure.rounds} is never played; the scenario has {scenario.rounds}"
    if not unknown:
        yield from _metric(scenario, measure, sides)


def _metric(scenario: Scenario, measure: Measure, sides: Sides | None) -> Iterator[tuple[KeyPath, str]]:
    # Not with the module: only a scenario that is searched needs the metrics' names.
    from tsdf_ray.metrics.summary import OPTIONAL, WHERE

    given = scenario.evaluation
    network = "judge" if given.feature_network is None else Path(given.feature_network).stem
    attackers = measure.attackers or (sides[1] if sides else scenario.attackers)
    prepared = [set(scenario.attackers[name].prepare.detectors) for name in attackers]
    # An attacker's own detectors are looked at in its pairs alone.
    detectors = [*given.detectors, *sorted(set.intersection(*prepared) - set(given.detectors))]
    valid = [*WHERE, f"frechet_{network}", f"kernel_{network}", *(f"duq.{name}" for name in detectors)]
    valid += [name for name in OPTIONAL if getattr(given, NETWORKS[name]) is not None]
    if measure.metric in valid:
        return
    if measure.metric in OPTIONAL:
        yield ("metric",), f"{measure.metric} needs a network of yours: give evaluation.{NETWORKS[measure.metric]}"
    elif any(measure.metric.removeprefix("duq.") in found for found in prepared):
        text = "not all attackers it is measured against look with this detector; name it in evaluation.detectors"
        yield ("metric",), f"{measure.metric}: {text}"
    else:
        near = did_you_mean(measure.metric, valid)
        yield ("metric",), f"unknown metric {measure.metric!r}.{near} Valid names: {', '.join(valid)}"
