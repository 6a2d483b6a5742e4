"""The charts of the report. Defenders keep their colour and marker everywhere; attackers have a panel each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from tsdf_ray.report.charts import (
    BAND,
    INK,
    MUTED,
    PANEL,
    PAPER,
    Chart,
    Look,
    Panel,
    end_labels,
    interval,
    looks,
    message,
    percent_axis,
    shorten,
)
from tsdf_ray.report.data import Key, Run, Value

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
    panels = [Panel(f"against {a}", partial(_decay, run, a, metric), margins=(0.12, 0.19, 0.82, 0.97)) for a in run.attackers] if run.shares() else []
    return Chart(f"decay_{metric}", title, tuple(panels))


def _decay(run: Run, attacker: str, metric: str, axes: Axes) -> None:
    percent_axis(axes)
    shares, style = run.shares(), looks(run.defenders)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100%"])
    axes.set_xlabel("of the round’s retraining steps")
    labels = []
    for defender in (d for d in run.defenders if (d, attacker) in run.pairs):
        look = style[defender]
        for r in range(1, run.rounds + 1):
            values = [(s, run.row((defender, attacker), r, r, "decay", metric, s)) for s in shares]
            known = [(s, v.value) for s, v in values if v.value is not None]
            last = r == run.rounds
            _line(axes, known, look, width=2.6 if last else 1.1, marked=last, alpha=1.0 if last else 0.55)
            if last and known:
                labels.append((known[-1][1], defender, look.colour))
                for s, value in values:
                    interval(axes, s, value, look.colour)
    if not labels:
        message(axes, "Not available: no decay curve was measured in the last round")
        return
    end_labels(axes, labels, 1.05)


def persistence(run: Run) -> Chart:
    """Each w_s against the generator of before and of every later round, one panel per pair."""
    metric = "protection" if any(k[5] == "later" and k[7] == "protection" for k in run.rows) else "sr_mask"
    words = {"protection": "Forgeries that fail", "sr_mask": "Distorted forgeries (SR_mask)"}[metric]
    side = max(3.0, 0.62 * run.rounds + 1.2)
    size = (side + 0.8, 0.78 * side)
    panels = [Panel(f"{d} against {a}", partial(_matrix, run, (d, a), metric), size, (0.1, 0.26, 0.99, 0.98)) for d, a in run.pairs]
    return Chart("persistence", f"{words}: each w against every later generator", tuple(panels))


def matrix(run: Run, pair: Key, metric: str) -> dict[tuple[int, int], Value]:
    """(s, r) -> `metric` of w_s against G_r, from r = s - 1 (before its round's retraining) to the last round."""
    cells: dict[tuple[int, int], Value] = {}
    for s in range(1, run.rounds + 1):
        cells[s, s - 1] = run.row(pair, s, s - 1, "before", metric)
        cells[s, s] = run.row(pair, s, s, "after", metric)
        for r in range(s + 1, run.rounds + 1):
            cells[s, r] = run.row(pair, s, r, "later", metric)
    return cells


def _matrix(run: Run, pair: Key, metric: str, axes: Axes) -> None:
    rounds = run.rounds
    colour = looks(run.defenders)[pair[0]].colour
    for (s, r), value in matrix(run, pair, metric).items():
        share = value.value
        axes.add_patch(Rectangle((r - 0.47, s - 0.45), 0.94, 0.9, facecolor=BAND, edgecolor="none"))
        if share is not None:
            axes.add_patch(Rectangle((r - 0.47, s - 0.45), 0.94, 0.9, facecolor=colour, alpha=share**0.9, linewidth=0))
        text, ink = ("–", MUTED) if share is None else (f"{100 * share:.0f}", PAPER if share > 0.55 else INK)
        axes.text(r, s, text, ha="center", va="center", color=ink, fontsize=12)
    axes.set_xlim(-0.55, rounds + 0.55)
    axes.set_ylim(rounds + 0.55, 0.45)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(range(rounds + 1), [f"G{_low(r)}" for r in range(rounds + 1)])
    axes.set_yticks(range(1, rounds + 1), [f"w{_low(s)}" for s in range(1, rounds + 1)])
    axes.tick_params(labelcolor=INK)
    axes.set_xlabel("judged against generator")


def _low(number: int) -> str:
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(number))


def detection(run: Run) -> Chart:
    """DUQ after the last round, one panel per detector; white-box filled, held-out hollow."""
    detectors = list(dict.fromkeys(name for pair in run.pairs for name in run.duq(pair)))
    height = 0.42 * len(run.pairs) + 0.7
    size, margins = (PANEL[0], height), (0.32, 0.55 / height, 0.92, 1 - 0.06 / height)
    panels = [Panel(f"detector {name}", partial(_duq, run, name), size, margins) for name in detectors]
    return Chart("duq", "Detection (DUQ) after the last round", tuple(panels))


def _duq(run: Run, detector: str, axes: Axes) -> None:
    style = looks(run.defenders)
    values = [(pair, (run.duq(pair).get(detector) or [Value(None)])[-1]) for pair in run.pairs]
    lowest = min([0.0, *(v.low for _, v in values if v.low is not None), *(v.value for _, v in values if v.value)])
    low = max(-1.0, lowest) if lowest > -1 else lowest
    axes.axvline(1, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
    axes.axvline(0, color=MUTED, linewidth=0.9)
    for y, (pair, value) in enumerate(values):
        look, known = style[pair[0]], run.white_box(pair[0], detector)
        if value.value is None:
            axes.text(0.5, y, "not available", color=MUTED, ha="center", va="center", fontsize=10.5)
            continue
        if value.low is not None and value.high is not None:
            axes.plot([value.low, value.high], [y, y], color=look.colour, linewidth=2.2, alpha=0.45)
        axes.plot(value.value, y, look.marker, color=look.colour, markersize=8, zorder=3, markeredgewidth=1.8,
                  markerfacecolor=look.colour if known else PAPER)  # fmt: skip
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_yticks(range(len(values)), [f"{shorten(d, 12)} / {shorten(a, 12)}" for (d, a), _ in values])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_xlim(low - 0.08, 1.08)
    ends = [(0.0, "0\nhidden"), (1.0, "1\nuntouched")] + ([(low, f"{low:.1f}\nflooded".replace("-", "−"))] if low < -0.3 else [])
    axes.set_xticks([x for x, _ in ends], [text for _, text in ends])


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
            # A level, not a race: drawn through the whole plot.
            xs = [0.5, *(x for x, _ in known), run.rounds + 0.5]
            ys = [known[0][1], *(y for _, y in known), known[-1][1]]
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
