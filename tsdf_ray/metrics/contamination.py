"""The contamination curve: what a protection does to an attacker of whose photos only a share is protected.

Read off the summary of a scenario whose attackers differ in `collect.protected` alone: one point per attacker, for
each defender and metric, in the last round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

METRICS = ("protection", "persistence")
"""Names of the summary: forgeries that fail after the last round's retraining, and how much of SR_mask it leaves."""


@dataclass(frozen=True)
class Point:
    """One attacker of a curve."""

    share: float
    """Of the photos it collects that are protected, in [0, 1]."""
    attacker: str
    cell: Mapping[str, Any] | None
    """The summary's cell of its last round (value, low, high, n, reason); None when it played none."""


@dataclass(frozen=True)
class Curve:
    """A metric of one defender over the share; points in rising order of it."""

    defender: str
    metric: str
    points: tuple[Point, ...]


def dose_groups(attackers: Mapping[str, Mapping[str, Any]]) -> list[dict[str, float]]:
    """Sets of two and more attackers that differ in `collect.protected` alone: {name: share}, shares rising.

    `attackers` is the section of the scenario as played (defaults filled). Of equal attackers the first counts.
    """
    alike: dict[str, dict[float, str]] = {}
    for name, config in attackers.items():
        collect = dict(config.get("collect") or {})
        share = float(collect.pop("protected", 1.0))
        rest = json.dumps({**config, "collect": collect}, sort_keys=True)
        alike.setdefault(rest, {}).setdefault(share, name)
    return [{by[share]: share for share in sorted(by)} for by in alike.values() if len(by) > 1]


def contamination(
    pairs: Mapping[str, Mapping[str, Any]], doses: Mapping[str, float], metrics: Sequence[str] = METRICS
) -> list[Curve]:
    """Curves of every defender in `pairs` (of summary.json) that met at least one attacker of `doses`."""
    defenders = dict.fromkeys(name.partition("/")[0] for name in pairs if name.partition("/")[2] in doses)
    curves = []
    for defender in defenders:
        for metric in metrics:
            points = tuple(
                Point(share, attacker, _last(pairs.get(f"{defender}/{attacker}", {}).get(metric)))
                for attacker, share in sorted(doses.items(), key=lambda item: item[1])
            )
            curves.append(Curve(defender, metric, points))
    return curves


def _last(cells: Sequence[Mapping[str, Any] | None] | None) -> Mapping[str, Any] | None:
    """Of the last round that was played: rounds still owed are null at the end."""
    played = [cell for cell in cells or () if cell is not None]
    return played[-1] if played else None
