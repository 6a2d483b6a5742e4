"""The charts of the report. Defenders keep their colour and marker everywhere; attackers have a panel each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.axes import Axes

from tsdf_ray.report.charts import (
    BAND,
    MUTED,
    PAPER,
    Chart,
    Look,
    Panel,
    end_labels,
    interval,
    looks,
    message,
    percent_axis,
)
from tsdf_ray.report.data import MISSING, Run
from tsdf_ray.report.doses import contamination_chart
from tsdf_ray.report.grids import detection, persistence

REFERENCES = {"none": ("unprotected", (0, ())), "noise": ("noise", (0, (2, 2)))}
"""Reference -> its label and line style."""


def all_charts(run: Run) -> dict[str, Chart]:
    """Every chart the run has data for, by name."""
    charts = [
        edit_success(run),
        over_rounds(run, "protection", "protection", "Forgeries that fail, after retraining", references="protection"),
        decay(run, "sr_mask", "Distorted forgeries (SR_mask) while the attacker retrains"),
        decay(run, "edit_success", "Successful edits while the attacker retrains"),
        persistence(run),
        contamination_chart(run),
        over_rounds(run, "yield", "yield", "Photos the attacker could use"),
        detection(run),
    ]
    return {chart.name: chart for chart in charts if chart.panels}


def edit_success(run: Run) -> Chart:
    """Edit success before and after each round's retraining: the saw-tooth of the race."""
    panels = [Panel(f"against {a}", partial(_saw, run, a)) for a in run.attackers]
    return Chart("edit_success", "Edits that succeed, before and after retraining", tuple(panels))


def _saw(run: Run, attacker: str, axes: Axes) -> None:
    percent_axis(axes)
    rounds, style = run.rounds, looks(run.defenders)
    _round_axis(axes, rounds)
    if rounds <= 4:
        marks = [r + side for r in range(1, rounds + 1) for side in (-0.22, 0.22)]
        axes.set_xticks(marks, ["before", "after"] * rounds, minor=True)
        axes.tick_params(axis="x", which="minor", labelsize=10, labelcolor=MUTED, pad=3)
        axes.tick_params(axis="x", which="major", pad=17)
    labels = _references(run, attacker, "edit_success", axes, 0.22)
    for defender in run.defenders:
        if (defender, attacker) not in run.pairs:
            continue
        look = style[defender]
        before = run.over_rounds((defender, attacker), "edit_success_before")
        after = run.over_rounds((defender, attacker), "edit_success_after")
        earlier: tuple[float, float] | None = None
        for r, (start, end) in enumerate(zip(before, after, strict=False), 1):
            points = [(r - 0.22, start), (r + 0.22, end)]
            known = [(x, v.value) for x, v in points if v.value is not None]
            if earlier and known:
                _line(axes, [earlier, known[0]], look, width=1.1, linestyle=(0, (1, 2)))
            _line(axes, known, look, width=2.6)
            for x, value in points:
                interval(axes, x, value, look.colour)
            earlier = known[-1] if known else earlier
        if earlier:
            labels.append((earlier[1], defender, look.colour))
    end_labels(axes, labels, rounds + 0.56)


def over_rounds(run: Run, name: str, metric: str, title: str, references: str = "") -> Chart:
    """A metric of summary.json over the rounds, one panel per attacker."""
    panels = [Panel(f"against {a}", partial(_rounds, run, a, metric, references)) for a in run.attackers]
    return Chart(name, title, tuple(panels))


def _rounds(run: Run, attacker: str, metric: str, references: str, axes: Axes) -> None:
    percent_axis(axes)
    _round_axis(axes, run.rounds)
    labels = _references(run, attacker, references, axes, 0.0) if references else []
    style = looks(run.defenders)
    present = [d for d in run.defenders if (d, attacker) in run.pairs]
    reasons = [""]
    for i, defender in enumerate(present):
        values = run.over_rounds((defender, attacker), metric)
        # Beside each other, so that equal lines do not hide each other.
        shift = 0.08 * (i - (len(present) - 1) / 2)
        known = [(r + shift, v.value) for r, v in enumerate(values, 1) if v.value is not None]
        _line(axes, known, style[defender], width=2.4)
        for r, value in enumerate(values, 1):
            interval(axes, r + shift, value, style[defender].colour)
        if known:
            labels.append((known[-1][1], defender, style[defender].colour))
        reasons += [v.reason for v in values if v.reason]
    if not labels:
        message(axes, f"Not available: {reasons[-1] or 'not measured'}")
        return
    end_labels(axes, labels, run.rounds + 0.54)


def decay(run: Run, metric: str, title: str) -> Chart:
    """A metric at shares of the round’s retraining steps: bold the last round, thin the earlier ones."""
    panels = (
        [
            Panel(f"against {a}", partial(_decay, run, a, metric), margins=(0.105, 0.18, 0.83, 0.97))
            for a in run.attackers
        ]
        if run.shares()
        else []
    )
    return Chart(f"decay_{metric}", title, tuple(panels))


def _decay(run: Run, attacker: str, metric: str, axes: Axes) -> None:
    percent_axis(axes)
    shares, style = run.shares(), looks(run.defenders)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100%"])
    axes.set_xlabel("of the round’s retraining steps")
    labels: list[tuple[float, str, str]] = []
    reasons = ["no decay curve was measured in the last round"]
    for defender in (d for d in run.defenders if (d, attacker) in run.pairs):
        look = style[defender]
        for r in range(1, run.rounds + 1):
            values = [(s, run.row((defender, attacker), r, r, "decay", metric, s)) for s in shares]
            known = [(s, v.value) for s, v in values if v.value is not None]
            reasons += [v.reason for _, v in values if v.reason and v is not MISSING]
            last = r == run.rounds
            _line(axes, known, look, width=2.6 if last else 1.1, marked=last, alpha=1.0 if last else 0.55)
            if last and known:
                labels.append((known[-1][1], defender, look.colour))
                for s, value in values:
                    interval(axes, s, value, look.colour)
    if not labels:
        message(axes, f"Not available: {reasons[-1]}")
        return
    end_labels(axes, labels, 1.05)


def _round_axis(axes: Axes, rounds: int) -> None:
    axes.set_xlim(0.5, rounds + 0.5)
    step = max(1, rounds // 8)
    ticks = list(range(1, rounds + 1, step))
    axes.set_xticks(ticks, [f"round {r}" if rounds <= 4 else str(r) for r in ticks])
    for r in range(1, rounds + 1, 2):
        axes.axvspan(r - 0.5, r + 0.5, color=BAND, linewidth=0, zorder=0)


def _references(run: Run, attacker: str, metric: str, axes: Axes, offset: float) -> list[tuple[float, str, str]]:
    labels = []
    for name, (label, dashes) in REFERENCES.items():
        values = [(r + offset, run.reference(attacker, r, name, metric)) for r in range(1, run.rounds + 1)]
        known = [(x, v.value) for x, v in values if v.value is not None]
        if known:
            # Levels, drawn through the whole plot; on the left, where it is measured, against the first generator.
            first = run.reference(attacker, 0, name, metric).value
            xs = [0.5, *(x for x, _ in known), run.rounds + 0.5]
            ys = [known[0][1] if first is None else first, *(y for _, y in known), known[-1][1]]
            axes.plot(xs, ys, color=MUTED, linewidth=1.4, linestyle=dashes, zorder=1.5)
            labels.append((known[-1][1], label, MUTED))
    return labels


def _line(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    look: Look,
    width: float,
    marked: bool = True,
    alpha: float = 1.0,
    linestyle: object = "-",
) -> None:
    draw: Callable[..., object] = axes.plot
    draw(
        [x for x, _ in points],
        [y for _, y in points],
        color=look.colour,
        linewidth=width,
        alpha=alpha,
        linestyle=linestyle,
        marker=look.marker if marked and linestyle == "-" else "",
        markersize=6.5,
        markeredgecolor=PAPER,
        markeredgewidth=0.8,
        zorder=3,
    )
