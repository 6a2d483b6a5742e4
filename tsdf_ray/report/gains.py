"""The numbers behind the answer: what a protection gains over none, and over another, paired by photo and seed.

Of every match the sums per photo are held, as arrays: a run of thousands of matches has millions of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tsdf_ray.metrics.bootstrap import Draws, Floats, interval, seed_counts
from tsdf_ray.report.data import MISSING, Key, Run, Value

OWN, BARE = 0, 1
"""Of published photos, and of unprotected ones."""
Photos = Mapping[int, Mapping[str, int]]
"""Seed -> photo -> its column in the sums of every pair."""
Sums = Mapping[int, Floats]
"""Seed -> [P, 2]: sum of value and of weight per photo; photos of a higher column were not measured."""


class Gains:
    """Of a run, from tables/images.parquet; without that file nothing is known."""

    def __init__(self, run: Run) -> None:
        self._resamples, self._run_seed = run.bootstrap
        self._draws = Draws()
        self._photos: dict[int, dict[str, int]] = {}
        self._sums: dict[Key, tuple[dict[int, Floats], dict[int, Floats]]] = {pair: ({}, {}) for pair in run.pairs}
        last = {pair: len(run.over_rounds(pair, "protection")) for pair in run.pairs}
        path = run.root / "tables" / "images.parquet"
        for rows in _protection_rows(path) if path.exists() else ():
            self._take(rows, last)

    def over_none(self, pair: Key) -> Value:
        """Protection of the pair's published photos minus that of unprotected ones of the same races."""
        return self._paired(*self._sums[pair])

    def between(self, one: Key, other: Key) -> Value:
        """Protection of one pair minus that of another one."""
        return self._paired(self._sums[one][OWN], self._sums[other][OWN])

    def _paired(self, a: Sums, b: Sums) -> Value:
        return paired_difference(a, b, self._photos, self._resamples, self._run_seed, self._draws)

    def _take(self, rows: pa.Table, last: Mapping[Key, int]) -> None:
        """Add rows to the sums of their photos, in their order."""
        names = ("seed", "defender", "attacker", "phase", "round")
        for key, own in _runs_of(rows, names):
            seed, defender, attacker, phase, round = key
            if last.get((defender, attacker)) != round:
                continue
            into = self._sums[defender, attacker][OWN if phase == "after" else BARE]
            columns = self._photos.setdefault(seed, {})
            photos = pc.dictionary_encode(own["photo"].combine_chunks())
            place_P = np.array([columns.setdefault(name, len(columns)) for name in photos.dictionary.to_pylist()])
            sums_P2 = into.get(seed, np.zeros((0, 2)))
            if len(sums_P2) <= place_P.max():
                sums_P2 = np.concatenate([sums_P2, np.zeros((int(place_P.max()) + 1 - len(sums_P2), 2))])
            for column, name in enumerate(("value", "weight")):
                np.add.at(sums_P2[:, column], place_P[photos.indices.to_numpy()], own[name].to_numpy())
            into[seed] = sums_P2


def _protection_rows(path: Path) -> Iterator[pa.Table]:
    """Rows of images.parquet that say how well photos were protected by w_r against G_r, and how well unprotected ones
    fare; a row group at a time. Columns: seed, defender, attacker, round, phase (after or reference), photo, value,
    weight."""
    columns = ["seed", "defender", "attacker", "round", "judged_round", "phase", "model", "metric", "photo"]
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            table: pa.Table = file.read_row_group(number, columns=[*columns, "value", "weight"])
            same = pc.and_(pc.equal(table["round"], table["judged_round"]), pc.equal(table["metric"], "protection"))
            bare = pc.and_(pc.equal(table["phase"], "reference"), pc.equal(table["model"], "none"))
            wanted = pc.and_(pc.or_(pc.equal(table["phase"], "after"), bare), pc.is_valid(table["value"]))
            yield table.filter(pc.and_(same, wanted)).drop_columns(["judged_round", "metric", "model"])


def _runs_of(rows: pa.Table, names: tuple[str, ...]) -> Iterator[tuple[tuple[Any, ...], pa.Table]]:
    """Stretches of rows that agree in the columns `names`: (their values, the rows)."""
    codes = [pc.dictionary_encode(rows[name].combine_chunks()) for name in names]
    code_N5 = np.stack([code.indices.to_numpy() for code in codes], axis=1)
    bounds = [0, *(np.flatnonzero((code_N5[1:] != code_N5[:-1]).any(1)) + 1).tolist(), len(code_N5)]
    for start, end in pairwise(bounds):
        if start < end:
            values = (code.dictionary[int(i)].as_py() for code, i in zip(codes, code_N5[start], strict=True))
            yield tuple(values), rows.slice(start, end - start)


def paired_difference(
    a: Sums, b: Sums, photos: Photos, resamples: int = 1000, run_seed: int = 0, draws: Draws | None = None
) -> Value:
    """Mean of a minus mean of b over the (seed, photo) both have, with the bootstrap of all intervals (metrics)."""
    draws = draws or Draws()
    shared: dict[int, tuple[list[str], Floats]] = {}
    for seed in sorted(a.keys() & b.keys()):
        count = min(len(a[seed]), len(b[seed]))
        sums_P4 = np.concatenate([a[seed][:count], b[seed][:count]], axis=1)
        both_P = (sums_P4[:, 1] > 0) & (sums_P4[:, 3] > 0)
        names = sorted(name for name, place in photos[seed].items() if place < count and both_P[place])
        if names:
            shared[seed] = names, sums_P4[[photos[seed][name] for name in names]]
    if not shared:
        return MISSING
    times_RS = seed_counts(run_seed, list(shared), resamples)
    drawn_R4, total_4 = np.zeros((resamples, 4)), np.zeros(4)
    for s, (seed, (names, sums_P4)) in enumerate(shared.items()):
        drawn_R4 += draws.photo_counts(run_seed, seed, names, times_RS[:, s]) @ sums_P4
        total_4 += sums_P4.sum(0)
    spread_R = drawn_R4[:, 0] / drawn_R4[:, 1] - drawn_R4[:, 2] / drawn_R4[:, 3]
    low, high = interval(spread_R[None])
    value = total_4[0] / total_4[1] - total_4[2] / total_4[3]
    return Value(float(value), float(low[0]), float(high[0]), sum(len(names) for names, _ in shared.values()))
