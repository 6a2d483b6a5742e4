"""The separation map as a chart."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tsdf_ray.report.charts import GRID, INK, MUTED, PAPER, SERIES, Chart, Panel
from tune.labels import Label, place_labels
from tune.results import Results
from tune.separation_map import SeparationMap, is_log
from tune.words import short_names, tick

LEVELS = 7


def map_chart(results: Results) -> Chart:
    """One panel; none where there is no map (`results.map_` says why)."""
    found = results.map_[0]
    if found is None:
        return Chart("map", "", ())
    x, y = (short_names(results.search.parameters)[name] for name in found.parameters)
    name = "Separation map" if {x.rpartition(".")[2], y.rpartition(".")[2]} == {"tau", "fraction"} else "Map"
    at = ", every complete trial" if found.psnr is None or found.surface is None else f" at PSNR {found.psnr:.1f} dB"
    title = f"{name}: {found.objective} over {x} and {y}"
    return Chart(
        "map",
        title,
        (Panel(f"{found.objective}{at}", partial(_draw, results, found), (6.6, 4.6), (0.11, 0.12, 0.97, 0.97)),),
    )


def _draw(results: Results, found: SeparationMap, axes: Axes) -> None:
    objective = results.search.objectives[found.objective]
    values = [trial.last.values[found.objective] for trial in found.trials if trial.last]
    low, high = min(values), max(values)
    better = objective.direction == "maximize"

    def shade(value: float) -> float:
        share = 0.5 if high == low else (value - low) / (high - low)
        return 0.06 + 0.84 * (share if better else 1 - share)

    if found.surface is not None:
        told = np.ma.masked_invalid(found.surface)
        levels = np.linspace(low, high, LEVELS + 1)
        colours = [to_rgba(SERIES[0], 0.75 * shade(float(level))) for level in (levels[:-1] + levels[1:]) / 2]
        axes.contourf(found.xs, found.ys, told, levels=levels, colors=colours)
        lines = axes.contour(found.xs, found.ys, told, levels=levels[1:-1], colors=[INK], linewidths=0.6, alpha=0.5)
        axes.clabel(lines, fmt=lambda level: tick(objective.metric, float(f"{level:.2g}")), fontsize=9, inline=True)
    points = []
    for trial, value in zip(found.trials, values, strict=True):
        x, y = (float(trial.params[name]) for name in found.parameters)  # type: ignore[arg-type]
        points.append((x, y))
        axes.plot(x, y, "o", markersize=8, color=PAPER, markeredgecolor=INK, markeredgewidth=0.9, zorder=3,
                  clip_on=False)  # fmt: skip
        axes.plot(x, y, "o", markersize=7.4, color=SERIES[0], alpha=shade(value), markeredgewidth=0, zorder=3.1,
                  clip_on=False)  # fmt: skip
    for setter, name in zip(("x", "y"), found.parameters, strict=True):
        parameter = results.search.parameters[name]
        axis = axes.xaxis if setter == "x" else axes.yaxis
        if is_log(parameter):
            (axes.set_xscale if setter == "x" else axes.set_yscale)("log")
        else:
            axis.set_major_locator(MaxNLocator(6))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        (axes.set_xlabel if setter == "x" else axes.set_ylabel)(short_names(results.search.parameters)[name])
    axes.set_xlim(float(found.xs[0]), float(found.xs[-1]))
    axes.set_ylim(float(found.ys[0]), float(found.ys[-1]))
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines["left"].set_visible(True)
    axes.spines["left"].set_color(MUTED)
    labels = []
    for player in results.players:
        if player.trial in found.trials and player.trial is not None:
            x, y = (float(player.trial.params[name]) for name in found.parameters)  # type: ignore[arg-type]
            colour = SERIES[1] if player.kind == "start" else INK
            axes.plot(x, y, "o", markersize=11, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1.8,
                      zorder=4, clip_on=False)  # fmt: skip
            labels.append(Label(x, y, player.name.replace("_", " "), colour))
    place_labels(axes, labels, points)
