"""The front as a chart: trials by their values, what no trial beats, start points and baselines marked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tsdf_ray.report.charts import GRID, MUTED, PANEL, PAPER, SERIES, Chart, Panel
from tsdf_ray.store.trials import Trial
from tune.analysis import bound
from tune.front import feasible, kept_to, scored
from tune.labels import Label, place_labels
from tune.results import Results
from tune.separation_map import psnr_of
from tune.words import tick, wish

BEST, START, BASELINE = SERIES[0], SERIES[1], SERIES[2]
KINDS = {"best": (BEST, "o", "best"), "start": (START, "s", "start point"), "baseline": (BASELINE, "D", "baseline")}
"""Kind of a player -> colour, marker, what it is called."""


def front_chart(results: Results) -> Chart:
    """Trade-offs: each pair of objectives; of one objective its trade with visibility, or with the first constraint."""
    title = "Trade-offs: the trials, and the front that no trial beats"
    names = list(results.search.objectives)
    trials = scored(results.search, results.trials)
    hollow = "" if len(feasible(results.search, trials)) == len(trials) else "; hollow: breaks a constraint"
    if not trials:
        return Chart("front", title, ())
    if len(names) > 1:
        pairs = [(x, y) for y, x in combinations(names, 2)]
        size, margins = ((6.6, 4.3), (0.11, 0.13, 0.97, 0.97)) if len(pairs) == 1 else (PANEL, (0.14, 0.17, 0.97, 0.97))
        panels = [Panel(f"{y} over {x}{hollow}", partial(_front, results, x, y), size, margins) for x, y in pairs]
        return Chart("front", title, tuple(panels))
    second = next(iter(results.search.constraints), None)
    if second is None and not any(psnr_of(trial) is not None for trial in results.trials):
        return Chart("front", title, ())
    title = f"What {names[0]} costs: every trial, the best marked"
    draw = partial(_front, results, second, names[0])
    return Chart(
        "front",
        title,
        (Panel(f"{names[0]} over {second or 'psnr'}{hollow}", draw, (6.6, 4.3), (0.11, 0.13, 0.97, 0.97)),),
    )


def _value(results: Results, trial: Trial, name: str | None) -> float | None:
    """Of an objective or constraint; None asks for the PSNR."""
    return psnr_of(trial) if name is None else results.values(trial).get(name)


def _metric(results: Results, name: str | None) -> str:
    return "psnr" if name is None else results.measures[name][0].metric


def _front(results: Results, x: str | None, y: str, axes: Axes) -> None:
    """Trials by two values."""
    at: list[tuple[float, float]] = []
    """What no label should lie on."""
    best = results.best[0]
    for trial in scored(results.search, results.trials):
        place = (_value(results, trial, x), _value(results, trial, y))
        if place[0] is None or place[1] is None or trial in best or trial.point:
            continue
        at.append((place[0], place[1]))
        able = trial.last is not None and kept_to(results.search, trial.last)
        front = able and len(results.search.objectives) > 1 and trial in results.front
        axes.plot(*at[-1], "o", markersize=6.5 if front else 5.5, zorder=3, markeredgewidth=1.2,
                  color=BEST if front else MUTED, markerfacecolor=(BEST if front else MUTED) if able else PAPER,
                  alpha=1.0 if front else 0.7)  # fmt: skip
    if x is not None and len(results.search.objectives) == 2:
        at += _front_line(results, x, y, axes)
    labels: list[Label] = []
    for player in results.players:
        xs = psnr_of(player.trial) if x is None and player.trial else None
        xs = player.searched[x].value if x is not None and x in player.searched else xs
        ys = player.searched[y].value if y in player.searched else None
        if xs is None or ys is None:
            continue
        colour, marker, _ = KINDS[player.kind]
        axes.plot(xs, ys, marker, color=colour, markersize=8.5, zorder=5, markeredgewidth=1.4,
                  markerfacecolor=colour if results.keeps(player) else PAPER)  # fmt: skip
        labels.append(Label(xs, ys, player.name.replace("_", " "), colour))
    _scale(axes, results, x, "x")
    _scale(axes, results, y, "y")
    axes.grid(color=GRID, linewidth=0.8)
    axes.margins(0.08, 0.08)
    for name, line in ((x, axes.axvline), (y, axes.axhline)):
        if name in results.search.constraints:
            _bound(results, name, line)
    place_labels(axes, labels, at)


def _bound(results: Results, name: str, line: Callable[..., object]) -> None:
    line(bound(results.search.constraints[name]), color=MUTED, linewidth=1.2, linestyle=(0, (3, 3)), zorder=1.5)


def _front_line(results: Results, x: str, y: str, axes: Axes) -> list[tuple[float, float]]:
    """Steps: what lies beyond was reached by no trial. Returns points along them."""
    points = sorted((results.values(t)[x], results.values(t)[y]) for t in results.front)
    if len(points) > 1:
        # From a point to its neighbour through the corner that both beat.
        more = results.search.objectives[x].direction == "maximize"
        axes.plot(*zip(*points, strict=True), color=BEST, linewidth=1.6, alpha=0.6, zorder=2,
                  drawstyle="steps-pre" if more else "steps-post")  # fmt: skip
    along: list[tuple[float, float]] = []
    for (x0, y0), (x1, y1) in pairwise(points):
        corner = (x0, y1) if results.search.objectives[x].direction == "maximize" else (x1, y0)
        for start, end in (((x0, y0), corner), (corner, (x1, y1))):
            along += [(float(a), float(b)) for a, b in np.linspace(start, end, 16)]
    return along


def _scale(axes: Axes, results: Results, name: str | None, which: str) -> None:
    """Ticks and title of an axis: what it is and which way is better."""
    metric = _metric(results, name)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(metric, value)))
    if name is None:
        text = "PSNR, dB: to the right less visible"
    elif name in results.search.constraints:
        text = f"{name}, {wish(results.search.constraints[name])} (dashed)"
    else:
        upward = results.search.objectives[name].direction == "maximize"
        text = f"{name}: " + ({"x": "right", "y": "up"} if upward else {"x": "left", "y": "down"})[which] + " is better"
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(text)
