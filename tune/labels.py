"""Labels beside points, moved about so that they touch neither each other nor other points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from tsdf_ray.report.charts import shorten

SIZE = 10.5
"""Of the text, in points."""
_AROUND = [
    (dx, dy, across, up)
    for far in (7.0, 13.0, 21.0, 32.0)
    for dx, dy, across, up in (
        (far, 0.0, "left", "center"),
        (-far, 0.0, "right", "center"),
        (0.0, far, "center", "bottom"),
        (0.0, -far, "center", "top"),
        (0.7 * far, 0.7 * far, "left", "bottom"),
        (-0.7 * far, 0.7 * far, "right", "bottom"),
        (0.7 * far, -0.7 * far, "left", "top"),
        (-0.7 * far, -0.7 * far, "right", "top"),
    )
]


@dataclass(frozen=True)
class Label:
    """A text for a point in data coordinates."""

    x: float
    y: float
    text: str
    colour: str


@dataclass(frozen=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: _Box) -> float:
        """Shared area, in square points."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)


def place_labels(axes: Axes, labels: Sequence[Label], points: Sequence[tuple[float, float]]) -> None:
    """Draw the labels. Call it last: limits and scales of the axes must be as they stay.

    `points`: everything drawn that no text should lie on.
    """
    # Limits are set by what was drawn only when they are asked for.
    axes.get_xlim(), axes.get_ylim()
    scale = 72.0 / float(axes.figure.dpi)
    corner = np.array([axes.bbox.x0, axes.bbox.y0])

    def in_points(x: float, y: float) -> tuple[float, float]:
        at = (axes.transData.transform((x, y)) - corner) * scale
        return float(at[0]), float(at[1])

    # A little inside: in a PNG the layout may still shrink the axes.
    frame = _Box(3.0, 3.0, float(axes.bbox.width) * scale - 3, float(axes.bbox.height) * scale - 3)
    taken = [_around(*in_points(x, y), 5.0) for x, y in [*points, *((label.x, label.y) for label in labels)]]
    texts: list[_Box] = []
    for label in labels:
        text = shorten(label.text, 16)
        x, y = in_points(label.x, label.y)
        options = [(_text_box(x + dx, y + dy, text, across, up), dx, dy, across, up) for dx, dy, across, up in _AROUND]
        # A label far off needs a line, which crosses others: better to touch a dot a little.
        costs = [
            _cost(box, taken, texts, frame) + 0.3 * i + 1.5 * (abs(dx) + abs(dy))
            for i, (box, dx, dy, *_) in enumerate(options)
        ]
        box, dx, dy, across, up = options[int(np.argmin(costs))]
        texts.append(box)
        far = abs(dx) + abs(dy) > 10
        axes.annotate(
            text,
            (label.x, label.y),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=across,
            va=up,
            fontsize=SIZE,
            color=label.colour,
            zorder=6,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": label.colour, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 3}
            if far
            else None,
        )


def _cost(box: _Box, points: Sequence[_Box], texts: Sequence[_Box], frame: _Box) -> float:
    area = (box.right - box.left) * (box.top - box.bottom)
    on_points, on_texts = (sum(box.overlap(other) for other in others) for others in (points, texts))
    return on_points + 10 * on_texts + 3 * (area - box.overlap(frame))


def _around(x: float, y: float, radius: float) -> _Box:
    return _Box(x - radius, y - radius, x + radius, y + radius)


def _text_box(x: float, y: float, text: str, across: str, up: str) -> _Box:
    width, height = 0.56 * SIZE * len(text) + 2, 1.15 * SIZE
    left = {"left": x, "right": x - width, "center": x - width / 2}[across]
    bottom = {"bottom": y, "top": y - height, "center": y - height / 2}[up]
    return _Box(left, bottom, left + width, bottom + height)
