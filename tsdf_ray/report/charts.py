"""One drawing for two places: PNG files with the light palette, and SVG in the page whose colours follow its theme.

Matplotlib draws with the light palette; in the SVG each of its colours becomes a CSS variable (page.css), so that one
chart reads well on light and dark. Text stays text and takes the page's font.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from tsdf_ray.report.data import Value

INK, MUTED, GRID, BAND, PAPER = "#1d2330", "#616b7c", "#dfe3e9", "#f3f5f8", "#fdfdfe"
# Blue, vermillion, green, purple, ochre, sky: told apart with any colour vision, and by marker as well.
SERIES = ("#0b62a6", "#c8500a", "#00785a", "#a0458c", "#8a6d01", "#2b87b8")
MARKERS = ("o", "s", "^", "D", "v", "P")
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", BAND: "band", PAPER: "paper"} | {
    colour: f"series{i}" for i, colour in enumerate(SERIES)
}
_STYLE: dict[Any, Any] = {
    "font.size": 11.5,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    # Names come from users: a dollar sign is no formula.
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": MUTED,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "axes.axisbelow": True,
    "lines.solid_capstyle": "round",
}
PANEL = (5.2, 3.25)
"""Width and height of one panel in inches; one inch is 72 units of the SVG."""


@dataclass(frozen=True)
class Look:
    """How one player is drawn, everywhere alike."""

    colour: str
    marker: str


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A colour and a marker per name, by its place."""
    return {name: Look(SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}


@dataclass(frozen=True)
class Panel:
    """One set of axes: what it shows, and how to draw it."""

    title: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = PANEL
    margins: tuple[float, float, float, float] = (0.105, 0.145, 0.785, 0.97)
    """Left, bottom, right and top edge of the axes in the SVG, so that panels beside each other line up."""


@dataclass(frozen=True)
class Chart:
    """A figure of one or more panels."""

    name: str
    title: str
    panels: tuple[Panel, ...]

    def png(self) -> bytes:
        """All panels side by side, light palette, 160 dots per inch."""
        per_row = min(len(self.panels), 3)
        rows = -(-len(self.panels) // per_row)
        width, height = self.panels[0].size
        with mpl.rc_context(_STYLE):
            figure = Figure((width * per_row, (height + 0.25) * rows + 0.4), layout="constrained", facecolor="white")
            FigureCanvasAgg(figure)
            figure.suptitle(self.title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
            for i, panel in enumerate(self.panels):
                axes = figure.add_subplot(rows, per_row, i + 1)
                axes.set_title(panel.title, loc="left", fontsize=11.5, color=INK)
                panel.draw(axes)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=160)
        return buffer.getvalue()

    def svgs(self) -> list[str]:
        """One SVG per panel, to be put into the page."""
        return [self._svg(panel, i) for i, panel in enumerate(self.panels)]

    def _svg(self, panel: Panel, number: int) -> str:
        # The salt keeps the ids of clip paths and markers apart when several SVGs share a page.
        with mpl.rc_context({**_STYLE, "svg.hashsalt": f"{self.name}-{number}"}):
            figure = Figure(panel.size)
            FigureCanvasSVG(figure)
            left, bottom, right, top = panel.margins
            panel.draw(figure.add_axes((left, bottom, right - left, top - bottom)))
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return themed(buffer.getvalue())


def themed(svg: str) -> str:
    """A matplotlib SVG without prologue, fixed size and running ids, its palette replaced by CSS variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z][A-Za-z0-9.]*_\d+"', "", svg)
    head, rest = svg.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None
    for colour, variable in _VARIABLES.items():
        rest = rest.replace(colour, f"var(--{variable})")
    return f'<svg {view[0]} xmlns:xlink="http://www.w3.org/1999/xlink" aria-hidden="true">{rest}'


def percent_axis(axes: Axes, low: float = 0.0) -> None:
    """Shares from `low` to 1 on the y axis, in per cent."""
    ticks = [-1.0, -0.5, 0.0, 0.5, 1.0] if low < 0 else [0.0, 0.25, 0.5, 0.75, 1.0]
    axes.set_ylim(low - 0.04, 1.04)
    axes.set_yticks(ticks, [f"{100 * t:.0f}%".replace("-", "−") for t in ticks])
    axes.grid(axis="y", color=GRID, linewidth=0.8)


def interval(axes: Axes, x: float, value: Value, colour: str, **style: Any) -> None:
    """The interval of one value as an upright line."""
    if value.low is not None and value.high is not None:
        axes.plot([x, x], [value.low, value.high], color=colour, linewidth=2.2, alpha=0.45, zorder=2.5, **style)


def end_labels(axes: Axes, labels: Sequence[tuple[float, str, str]], x: float, gap: float = 0.075) -> None:
    """Direct labels (y, text, colour) right of the lines at `x`, moved apart where they would touch."""
    low, high = axes.get_ylim()
    gap *= high - low
    lines = [(y, shorten(text, 14), colour) for y, text, colour in labels]
    places: list[float] = []
    for y, _, _ in sorted(lines):
        places.append(max(y, places[-1] + gap) if places else max(y, low))
    # Shift a stack that grew out at the top back down.
    limit = high
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - gap
    for place, (_, text, colour) in zip(places, sorted(lines), strict=True):
        axes.text(x, place, text, color=colour, va="center", ha="left", fontsize=11, clip_on=False)


def shorten(text: str, most: int) -> str:
    """At most `most` characters, an ellipsis for the rest."""
    return text if len(text) <= most else text[: most - 1] + "…"


def message(axes: Axes, text: str) -> None:
    """Instead of data: why there is none."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, textwrap.fill(text, 34), ha="center", va="center", color=MUTED, transform=axes.transAxes)
