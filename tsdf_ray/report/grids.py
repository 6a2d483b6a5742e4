"""Charts of pairs side by side: the persistence matrix, and detection per detector."""

from __future__ import annotations

from functools import partial

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from tsdf_ray.report.charts import BAND, INK, MUTED, PANEL, PAPER, Chart, Panel, looks, shorten
from tsdf_ray.report.data import Key, Run, Value


def persistence(run: Run) -> Chart:
    """Each w_s against the generator of before and of every later round, one panel per pair."""
    later = {key[7] for key in run.rows if key[5] == "later"}
    metric = "protection" if "protection" in later or not later else "sr_mask"
    words = {"protection": "Forgeries that fail", "sr_mask": "Distorted forgeries (SR_mask)"}[metric]
    size = (max(3.4, 0.62 * run.rounds + 1.6), 0.48 * run.rounds + 0.8)
    panels = [
        Panel(
            f"{d} against {a}", partial(_matrix, run, (d, a), metric), size, (0.36 / size[0], 0.6 / size[1], 0.99, 0.98)
        )
        for d, a in run.pairs
    ]
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
    size, margins = (PANEL[0], height), (0.3, 0.55 / height, 0.93, 1 - 0.06 / height)
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
    ends = [(0.0, "0\nhidden"), (1.0, "1\nuntouched")] + (
        [(low, f"{low:.1f}\nflooded".replace("-", "−"))] if low < -0.3 else []
    )
    axes.set_xticks([x for x, _ in ends], [text for _, text in ends])
