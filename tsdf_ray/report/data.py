"""A run as the report reads it: the files of docs/run-directory.md, nothing else, and no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from tsdf_ray.errors import UserError


@dataclass(frozen=True)
class Value:
    """One aggregated number with its 95 % interval. `value` is None where it cannot be computed: `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    reason: str | None = None
    censored_above: float | None = None
    """A half-life that was not reached within so many steps."""

    @staticmethod
    def of(entry: Mapping[str, Any] | None) -> Value:
        """From an object of summary.json or a row of metrics.parquet."""
        if entry is None:
            return MISSING
        return Value(
            entry.get("value"),
            entry.get("low"),
            entry.get("high"),
            entry.get("n"),
            entry.get("reason"),
            entry.get("censored_above"),
        )

    @property
    def known(self) -> bool:
        """Is there a number?"""
        return self.value is not None

    def apart_from(self, other: Value) -> bool | None:
        """Do the two intervals not overlap? None where one is missing."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return None
        return self.low > other.high or other.low > self.high


MISSING = Value(None, reason="not measured")

Key = tuple[str, str]
"""(defender, attacker)."""

DRAWN = 24
"""Pairs of which all are drawn; of more: the strongest defenders against the attackers that harm most."""
OF_ALL = ("protection", "edit_success")
"""Metrics of unprotected photos that the answer needs of every pair."""

_KEYS = ("defender", "attacker", "round", "judged_round", "step_share", "phase", "model", "metric")


@dataclass(frozen=True)
class Run:
    """Everything the page shows, in memory."""

    root: Path
    info: dict[str, Any]
    summary: dict[str, Any]
    scenario: dict[str, Any]
    scenario_yaml: str
    events: Iterable[dict[str, Any]]
    manifest: Iterable[dict[str, Any]]
    rows: Mapping[tuple[Any, ...], Value] = field(repr=False)
    """Pooled rows of metrics.parquet by (defender, attacker, round, judged_round, step_share, phase, model, metric)."""

    @staticmethod
    def load(root: Path) -> Run:
        """Read a run directory. Raises UserError when it is none, or when it has no results yet."""
        info = _json(root / "run.json", "is not a run directory; give the folder that `play --out` made")
        nothing_yet = "there are no results yet; finish the run with `tsdf-ray resume` first"
        summary = _json(root / "summary.json", nothing_yet)
        text = _text(root / "scenario.yaml", "restore it from a copy")
        return Run(
            root,
            info,
            summary,
            yaml.safe_load(text) or {},
            text,
            Lines(root / "events.jsonl"),
            Lines(root / "manifest.jsonl"),
            # When every match failed in its first round there are no tables: the page then says why.
            _rows(root / "tables" / "metrics.parquet", nothing_yet, len(summary["pairs"]))
            if summary.get("pairs")
            else {},
        )

    @cached_property
    def pairs(self) -> list[Key]:
        """Pairs with results, defenders and attackers in the order of the scenario."""
        found: list[Key] = []
        for name in self.summary.get("pairs", {}):
            defender, _, attacker = name.partition("/")
            found.append((defender, attacker))
        order = [*self.scenario.get("defenders", {}), *self.scenario.get("attackers", {})]
        place = {name: i for i, name in reversed(list(enumerate(order)))}
        return sorted(found, key=lambda p: (place.get(p[0], len(order)), place.get(p[1], len(order))))

    @cached_property
    def defenders(self) -> list[str]:
        """Defenders with results."""
        return list(dict.fromkeys(d for d, _ in self.pairs))

    @cached_property
    def attackers(self) -> list[str]:
        """Attackers with results, in the order of the scenario."""
        found = dict.fromkeys(a for _, a in self.pairs)
        return [a for a in self.scenario.get("attackers", {}) if a in found] or list(found)

    @property
    def seeds(self) -> list[int]:
        """Seeds of the run."""
        return list(self.summary.get("seeds") or self.info.get("seeds") or [])

    @property
    def bootstrap(self) -> tuple[int, int]:
        """Resamples, and the seed that names the draws: as the intervals of the tables were made."""
        resamples = (self.scenario.get("evaluation") or {}).get("resamples", 1000)
        return int(resamples), (self.seeds or [0])[0]

    @cached_property
    def rounds(self) -> int:
        """Rounds with results: the longest of any pair."""
        return max((len(self.over_rounds(p, "protection")) for p in self.pairs), default=0)

    def over_rounds(self, pair: Key, metric: str) -> list[Value]:
        """A metric of summary.json, one value per round from round 1."""
        return _series(self.summary["pairs"]["/".join(pair)].get(metric))

    def last(self, pair: Key, metric: str = "protection") -> Value:
        """A metric of summary.json after the pair's last round."""
        values = self.over_rounds(pair, metric)
        return values[-1] if values else MISSING

    def duq(self, pair: Key) -> dict[str, list[Value]]:
        """Detector -> DUQ per round."""
        entries = self.summary["pairs"]["/".join(pair)].get("duq", {})
        return {name: _series(values) for name, values in entries.items()}

    def white_box(self, defender: str, detector: str) -> bool:
        """Does the defender know this detector?"""
        return detector in (self.scenario.get("defenders", {}).get(defender, {}).get("detectors") or ())

    def row(
        self, pair: Key, round: int, judged: int, phase: str, metric: str, share: float = 1.0, model: str | None = None
    ) -> Value:
        """A pooled row of metrics.parquet; `model` None takes the row whatever its model is called."""
        return self.rows.get((*pair, round, judged, share, phase, model, metric), MISSING)

    def shares(self) -> list[float]:
        """Shares of a round's retraining steps at which w_r was judged."""
        return sorted({key[4] for key in self.rows if key[5] == "decay"})

    def reference(self, attacker: str, round: int, name: str, metric: str, defender: str | None = None) -> Value:
        """`none` or `noise` judged by G_r of the races against `attacker`: one defender's, or the first that has it."""
        for d, a in self.pairs if defender is None else [(defender, attacker)]:
            if a == attacker:
                value = self.row((d, a), round, round, "reference", metric, model=name)
                if value.known:
                    return value
        return MISSING


def _series(entries: Any) -> list[Value]:
    """Values of the rounds that were played: rounds an unfinished match still owes are null at the end."""
    cells = list(entries) if isinstance(entries, list) else []
    while cells and cells[-1] is None:
        cells.pop()
    return [Value.of(entry) for entry in cells]


def pooled(table: pa.Table) -> dict[tuple[Any, ...], Value]:
    """Rows of metrics.parquet by what they are about (`Run.rows`); those of single seeds are left out."""
    rows: dict[tuple[Any, ...], Value] = {}
    for row in table.to_pylist():
        if row["seed"] is not None:
            continue
        row["step_share"] = 1.0 if row["step_share"] is None else round(row["step_share"], 6)
        key = tuple(row[name] for name in _KEYS)
        value = Value.of(row)
        rows[key] = value
        rows.setdefault((*key[:6], None, key[7]), value)
    return rows


def _text(path: Path, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; {remedy}") from error


def _json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(_text(path, remedy))
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); restore it from a copy") from error
    return content


@dataclass(frozen=True)
class Lines:
    """The objects of a file of JSON lines, read one at a time whenever they are asked for; none when it is missing."""

    path: Path

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    yield json.loads(line)
                except ValueError:  # the last line of a run that was killed
                    return


def _rows(path: Path, remedy: str, pairs: int) -> dict[tuple[Any, ...], Value]:
    """All pooled rows of a run of few pairs; of one with many, those of the references."""
    wanted = pc.field("seed").is_null()
    if pairs > DRAWN:
        wanted &= (pc.field("phase") == "reference") & pc.field("metric").isin(OF_ALL)
    try:
        return pooled(pq.read_table(path, filters=wanted))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; {remedy}") from error
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: is damaged ({error}); restore it from a copy") from error
