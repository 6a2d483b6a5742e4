"""The contamination curve: protection and persistence over the share of protected photos that an attacker collects."""

from __future__ import annotations

from functools import partial

from matplotlib.axes import Axes

from tsdf_ray.metrics.contamination import METRICS, Curve, contamination, dose_groups
from tsdf_ray.report.charts import PAPER, Chart, Panel, end_labels, interval, looks, message, percent_axis
from tsdf_ray.report.data import Run, Value

TITLES = {
    "protection": "forgeries that fail, after retraining",
    "persistence": "persistence of SR_mask in the round",
}


def contamination_chart(run: Run) -> Chart:
    """A panel per metric and set of attackers that differ in `collect.protected` alone; none without such attackers."""
    panels: list[Panel] = []
    for doses in dose_groups(run.scenario.get("attackers") or {}):
        curves = contamination(run.summary.get("pairs", {}), doses)
        names = "" if len(panels) == 0 else f" ({', '.join(doses)})"
        for metric in METRICS if curves else ():
            drawn = [curve for curve in curves if curve.metric == metric]
            panels.append(Panel(TITLES[metric] + names, partial(_draw, run, drawn), margins=(0.105, 0.18, 0.8, 0.97)))
    return Chart("contamination", "What is left when only some of the attacker’s photos are protected", tuple(panels))


def _draw(run: Run, curves: list[Curve], axes: Axes) -> None:
    style = looks(run.defenders)
    labels, reasons, highest = [], ["not measured"], 1.0
    shift = 0.012
    for i, curve in enumerate(curves):
        look, offset = style[curve.defender], shift * (i - (len(curves) - 1) / 2)
        values = [(point.share + offset, Value.of(point.cell)) for point in curve.points]
        known = [(x, v.value) for x, v in values if v.value is not None]
        reasons += [v.reason for _, v in values if v.reason]
        highest = max([highest, *(v.high for _, v in values if v.high is not None)])
        axes.plot(
            [x for x, _ in known],
            [y for _, y in known],
            color=look.colour,
            linewidth=2.4,
            marker=look.marker,
            markersize=6.5,
            markeredgecolor=PAPER,
            markeredgewidth=0.8,
            zorder=3,
        )
        for x, value in values:
            interval(axes, x, value, look.colour)
        if known:
            labels.append((known[-1][1], curve.defender, look.colour))
    if not labels:
        message(axes, f"Not available: {reasons[-1]}")
        return
    percent_axis(axes)
    if highest > 1.0:  # a persistence above its start
        axes.set_ylim(-0.04, highest + 0.04)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100%"])
    axes.set_xlabel("of the attacker’s photos are protected")
    end_labels(axes, labels, 1.05)
