"""Numbers out of summary.json: the measures of objectives and constraints, and by how much a constraint is violated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from tsdf_ray.scenario.search import Constraint, Measure, Objective, SearchConfig

Pairs = Mapping[str, Mapping[str, Any]]
"""`pairs` of summary.json: `defender/attacker` -> metric -> one cell per round (`duq`: detector -> cells)."""
Better = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Measured:
    """A measure of a match: a value, or the reason why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    """95 % interval: where the measure comes down to one cell of the summary."""
    reason: str | None = None
    note: str | None = None
    """Why there is no interval, or of what it is one."""


def measure(pairs: Pairs, measure: Measure, rounds_played: int, better: Better) -> float | None:
    """What `measure` says of these pairs after `rounds_played` rounds; None where a value it needs is missing.

    Rounds come first, then attackers (their mean, or the worst: the least where more is better), then the mean over
    defenders.
    """
    return measured(pairs, measure, rounds_played, better).value


def measured(pairs: Pairs, measure: Measure, rounds_played: int, better: Better) -> Measured:
    """The same, with its interval or its reason."""
    names = [_split(name) for name in pairs]
    defenders = measure.defenders or tuple(dict.fromkeys(defender for defender, _ in names))
    attackers = measure.attackers or tuple(dict.fromkeys(attacker for _, attacker in names))
    if not defenders or not attackers:
        return Measured(None, reason="no pair was played")
    of_defenders: list[Measured] = []
    for defender in defenders:
        cells = [_over_rounds(pairs, f"{defender}/{attacker}", measure, rounds_played) for attacker in attackers]
        if missing := next((cell for cell in cells if cell.value is None), None):
            return missing
        of_defenders.append(_over_attackers(cells, attackers, measure, better))
    return _mean(of_defenders, "defenders")


def _split(pair: str) -> tuple[str, str]:
    defender, _, attacker = pair.partition("/")
    return defender, attacker


def _over_rounds(pairs: Pairs, pair: str, measure: Measure, rounds_played: int) -> Measured:
    if pair not in pairs:
        return Measured(None, reason=f"{pair} was not played")
    series, reason = _series(pairs[pair], measure.metric)
    if series is None:
        return Measured(None, reason=f"{pair}: {reason}")
    if measure.rounds == "mean":
        wanted: Iterable[int] = range(1, rounds_played + 1)
    else:
        wanted = [rounds_played if measure.rounds == "last" else measure.rounds]
    cells = [_cell(series, number, rounds_played, f"{pair}: {measure.metric}") for number in wanted]
    if not cells:
        return Measured(None, reason=f"{pair}: no round was played")
    return next((cell for cell in cells if cell.value is None), None) or _mean(cells, "rounds")


def _series(metrics: Mapping[str, Any], metric: str) -> tuple[list[Any] | None, str]:
    """The cells of a metric, one per round; else None and why."""
    name, dot, detector = metric.partition(".")
    found = metrics.get(name)
    if dot and isinstance(found, Mapping):
        found = found.get(detector)
    elif dot:
        found = None
    if isinstance(found, Mapping):
        return None, f"{metric} has one value per detector; name one: {metric}.{next(iter(found), 'DETECTOR')}"
    if not isinstance(found, list):
        return None, f"{metric} was not measured"
    return found, ""


def _cell(series: list[Any], number: int, rounds_played: int, name: str) -> Measured:
    cell = series[number - 1] if 1 <= number <= min(len(series), rounds_played) else None
    if cell is None:
        return Measured(None, reason=f"{name}: round {number} was not played")
    value = cell.get("value")
    if value is None or not math.isfinite(value):
        reason = cell.get("reason")
        if value is None and cell.get("censored_above"):
            reason = f"not reached within {cell['censored_above']:g}"
        return Measured(None, reason=f"{name}, round {number}: {reason or 'no value'}")
    return Measured(float(value), cell.get("low"), cell.get("high"))


def _over_attackers(cells: list[Measured], attackers: tuple[str, ...], measure: Measure, better: Better) -> Measured:
    if measure.over == "mean" or len(cells) == 1:
        return _mean(cells, "attackers")
    pick = min if better == "maximize" else max
    worst = pick(range(len(cells)), key=lambda i: cells[i].value or 0.0)
    cell = cells[worst]
    note = f"interval of the worst pair alone, against {attackers[worst]}" if cell.low is not None else cell.note
    return Measured(cell.value, cell.low, cell.high, note=note)


def _mean(cells: list[Measured], of: str) -> Measured:
    """The mean; of one cell the cell itself."""
    if len(cells) == 1:
        return cells[0]
    return Measured(fmean(cell.value or 0.0 for cell in cells), note=f"no interval: a mean over {of}")


def bound(constraint: Constraint) -> float:
    """The value a constraint must not pass."""
    limit = constraint.at_least if constraint.at_least is not None else constraint.at_most
    assert limit is not None
    return limit


def better_of(measure: Objective | Constraint) -> Better:
    """Which way is better."""
    if isinstance(measure, Objective):
        return measure.direction
    return "maximize" if measure.at_least is not None else "minimize"


def violation(constraint: Constraint, value: float) -> float:
    """How far `value` is on the wrong side: 0 or less when the constraint is kept to."""
    return bound(constraint) - value if constraint.at_least is not None else value - bound(constraint)


def constrained_value(constraint: Constraint, violated: float) -> float:
    """The value behind a violation: the other way of `violation`."""
    return bound(constraint) - violated if constraint.at_least is not None else bound(constraint) + violated


def report_values(
    search: SearchConfig, pairs: Pairs, round: int
) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Objective -> value, constraint -> violation, and the name of each that cannot be computed -> why."""
    values: dict[str, float] = {}
    violations: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name, objective in search.objectives.items():
        found = measured(pairs, objective, round, objective.direction)
        if found.value is None:
            missing[name] = found.reason or "no value"
        else:
            values[name] = found.value
    for name, constraint in search.constraints.items():
        found = measured(pairs, constraint, round, better_of(constraint))
        if found.value is None:
            missing[name] = found.reason or "no value"
        else:
            violations[name] = violation(constraint, found.value)
    return values, violations, missing
