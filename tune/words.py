"""How numbers, parameters and settings are written in the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tsdf_ray.report.data import Value
from tsdf_ray.report.tables import entry
from tsdf_ray.scenario.search import Constraint, Measure, Objective
from tsdf_ray.store.trials import Param
from tune.analysis import Measured, bound

_PERCENT = "\u00a0%"


def is_share(metric: str) -> bool:
    """Is it shown in per cent? So is all but a few known metrics, as in the report of a run."""
    return entry(metric.partition(".")[0], Value(0.5)).main.endswith("%")


def number(metric: str, value: float | None) -> str:
    """'86.3 %', '33.1': a value of a metric, a tenth of a per cent for shares."""
    if value is None:
        return "–"
    if is_share(metric):
        return f"{100 * value:.1f}\u00a0%".replace("-", "−")
    return entry(metric.partition(".")[0], Value(value)).main


def between(metric: str, value: Measured) -> str:
    """'84.1–88.0 %', or nothing."""
    if value.low is None or value.high is None:
        return ""
    low, high = number(metric, value.low), number(metric, value.high)
    return f"{low.removesuffix(_PERCENT)}\u2060–\u2060{high}"


def tick(metric: str, value: float) -> str:
    """The label of an axis."""
    text = f"{100 * value:.4g}%" if is_share(metric) else f"{value:.4g}"
    return text.replace("-", "−")


def param(value: Param) -> str:
    """A parameter's value: '0.0314', 'null', 'features'."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Dotted path -> the same without the steps that all begin with."""
    steps = {path: path.split(".") for path in paths}
    shared = 0
    while steps and all(len(own) > shared + 1 for own in steps.values()):
        if len({own[shared] for own in steps.values()}) > 1:
            break
        shared += 1
    return {path: ".".join(own[shared:]) for path, own in steps.items()}


def params_text(params: Mapping[str, Param], names: Mapping[str, str]) -> str:
    """'tau 0.41, share.fraction 0.2'."""
    return ", ".join(f"{names[path]} {param(params[path])}" for path in names if path in params)


def wish(constraint: Constraint) -> str:
    """'at least 32.0'."""
    return ("at least " if constraint.at_least is not None else "at most ") + number(
        constraint.metric, bound(constraint)
    )


def described(what: Measure) -> str:
    """'protection, last round, worst over attackers'."""
    rounds = {"last": "last round", "mean": "mean over rounds"}.get(str(what.rounds), f"round {what.rounds}")
    parts = [what.metric, rounds, f"{what.over} over attackers"]
    parts += [f"defenders {', '.join(what.defenders)}"] if what.defenders else []
    parts += [f"attackers {', '.join(what.attackers)}"] if what.attackers else []
    return ", ".join(parts)


def better_words(objective: Objective) -> str:
    """Which way is better."""
    return "higher is better" if objective.direction == "maximize" else "lower is better"
