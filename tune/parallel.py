"""Parallel coordinates: one line per trial through its parameters and objectives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from tsdf_ray.report.charts import GRID, INK, MUTED, SERIES, Chart, Panel, shorten
from tsdf_ray.scenario.search import Choice, Parameter
from tsdf_ray.store.trials import Param, Trial
from tune.front import feasible, kept_to, scored
from tune.results import Results
from tune.separation_map import to_unit
from tune.words import param, short_names, tick

MOST = 12
"""Parameters drawn: the most important, where there are more."""
UNUSED = -0.13
"""Where a line passes the axis of a parameter that does not count in its trial."""


def parallel_chart(results: Results) -> Chart:
    """Coloured by the first objective; infeasible trials dashed and grey, pruned and failed ones faint."""
    trials = scored(results.search, results.trials)
    title = "Every trial as a line: parameters on the left, what came of them on the right"
    if not trials:
        return Chart("parallel", title, ())
    names = _shown(results)
    width = max(7.5, 1.15 * (len(names) + len(results.search.objectives)) + 0.6)
    # Room for the labels of the last axis.
    margins = (0.55 / width, 0.19, 1 - 0.75 / width, 0.95)
    return Chart("parallel", title, (Panel("", partial(_draw, results, names), (width, 3.9), margins),))


def _shown(results: Results) -> list[str]:
    names = list(results.search.parameters)
    ranked = results.importances[next(iter(results.search.objectives))].shares or {}
    kept = sorted(names, key=lambda name: -ranked.get(name, 0.0))[:MOST]
    return [name for name in names if name in kept]


def place(parameter: Parameter, value: Param) -> float:
    """Where a value stands on its axis, 0 to 1; choices evenly, in their order."""
    if isinstance(parameter, Choice):
        options = list(parameter.options)
        return options.index(value) / max(len(options) - 1, 1)
    return float(to_unit(parameter, [value])[0])


def _draw(results: Results, names: Sequence[str], axes: Axes) -> None:
    objectives = list(results.search.objectives)
    ends = _ends(results)
    first = objectives[0]
    good = {trial.number for trial in scored(results.search, results.trials)}
    seen = [t.last.values[first] for t in feasible(results.search, results.trials) if t.last]
    span = (min(seen), max(seen)) if seen else ends[first]
    for trial in results.trials:
        line = [
            UNUSED if n not in trial.params else place(results.search.parameters[n], trial.params[n]) for n in names
        ]
        values = trial.last.values if trial.last else {}
        if trial.number not in good:
            axes.plot(range(len(line)), line, color=MUTED, linewidth=0.7, alpha=0.3, zorder=1)
            continue
        line += [_scaled(values[name], ends[name]) for name in objectives]
        quality = _scaled(values[first], span)
        quality = quality if results.search.objectives[first].direction == "maximize" else 1 - quality
        _line(results, trial, line, quality, axes)
    columns = [*names, *objectives]
    arrows = {name: "↑" if o.direction == "maximize" else "↓" for name, o in results.search.objectives.items()}
    for i, name in enumerate(columns):
        axes.plot([i, i], [0, 1], color=MUTED, linewidth=1.0, zorder=2)
        if i < len(names):
            _parameter_ticks(results.search.parameters[name], i, axes)
        else:
            low, high = ends[name]
            metric = results.search.objectives[name].metric
            _ends_text(axes, i, tick(metric, float(f"{low:.3g}")), tick(metric, float(f"{high:.3g}")))
    if any(name not in trial.params for trial in results.trials for name in names):
        axes.text(-0.12, UNUSED, "not used", ha="right", va="center", fontsize=9, color=MUTED, clip_on=False)
    short = short_names(results.search.parameters)
    labels = [shorten(short[n], 30).replace(".", ".\n") if n in short else f"{n} {arrows[n]}" for n in columns]
    axes.set_xticks(range(len(columns)), labels, fontsize=9.5)
    axes.set_yticks([])
    axes.set_ylim(UNUSED - 0.05, 1.07)
    axes.set_xlim(-0.35, len(columns) - 0.6)
    axes.spines["bottom"].set_visible(False)


def _line(results: Results, trial: Trial, line: Sequence[float], quality: float, axes: Axes) -> None:
    best = trial in results.best[0]
    start = bool(trial.point) and not best
    if trial.last is None or not kept_to(results.search, trial.last):
        colour, alpha, order = (SERIES[1], 0.9, 2.5) if start else (MUTED, 0.5, 1.5)
        axes.plot(range(len(line)), line, color=colour, linewidth=1.1, alpha=alpha, linestyle=(0, (4, 2)), zorder=order)
        return
    # The best must be seen, also where their first objective is the price of another.
    shade = max(0.2 + 0.8 * quality**1.5, 0.7 if best or start else 0.0)
    axes.plot(range(len(line)), line, color=SERIES[1] if start else SERIES[0], linewidth=3.0 if best else 1.5,
              alpha=shade, zorder=2 + quality)  # fmt: skip


def _ends(results: Results) -> dict[str, tuple[float, float]]:
    found = {}
    for name in results.search.objectives:
        values = [t.last.values[name] for t in scored(results.search, results.trials) if t.last]
        found[name] = (min(values), max(values))
    return found


def _scaled(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return 0.5 if high == low else (value - low) / (high - low)


def _parameter_ticks(parameter: Parameter, x: int, axes: Axes) -> None:
    if not isinstance(parameter, Choice):
        _ends_text(axes, x, param(parameter.low), param(parameter.high))
        return
    options = list(parameter.options)
    for y, option in zip(np.linspace(0, 1, len(options)) if len(options) > 1 else [0.0], options, strict=True):
        axes.plot(x, y, "_", color=MUTED, markersize=7, zorder=2)
        axes.text(x + 0.06, y + 0.012, shorten(param(option), 12), fontsize=9, color=INK, va="bottom", zorder=6)


def _ends_text(axes: Axes, x: int, low: str, high: str) -> None:
    axes.text(x + 0.05, -0.015, low, fontsize=9, color=INK, va="top", zorder=6)
    axes.text(x + 0.05, 1.015, high, fontsize=9, color=INK, va="bottom", zorder=6)
    axes.plot([x, x], [0, 1], "_", color=GRID, markersize=7, zorder=1.9)
