"""Groups of rows (one metric, one stage), their estimates, and the same estimates over bootstrap resamples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tsdf_ray.metrics.bootstrap import Counts, Draws, Floats, names_digest, ratio, seed_counts

Indices = npt.NDArray[np.int64]


class Key(NamedTuple):
    """Rows that agree in these columns are one group."""

    defender: str
    attacker: str
    round: int
    judged_round: int
    step_share: float
    phase: str
    split: str
    model: str
    metric: str


MeasuredOn = tuple[tuple[int, str], ...]
"""Seeds, and the photos of each (`names_digest`)."""


@dataclass(frozen=True)
class Groups:
    """G groups and their R resamples."""

    keys: list[Key]
    """Of each group, in the order of their first rows."""
    photos: list[MeasuredOn]
    """What each was measured on."""
    value_G: Floats
    """sum(value) / sum(weight); NaN where the weights are zero."""
    replicates_GR: Floats
    """The same over resampled seeds and photos; a replicate that draws no weight is NaN."""
    n_G: Counts
    """Rows with a weight."""


def resample(rows: pa.Table, resamples: int, run_seed: int, draws: Draws) -> Iterator[tuple[int | None, Groups]]:
    """Estimates and bootstrap estimates of every group of `rows`: of each seed, in order, and of all (None) at last.

    Holds the sums of one seed at a time.
    """
    group_N, keys = _groups(rows)
    photo_N, names = _encoded(rows["photo"])
    order = sorted(range(len(names)), key=names.__getitem__)
    rank_P = np.empty(len(names), dtype=np.int64)
    rank_P[order] = np.arange(len(names))
    photo_N, names = rank_P[photo_N], [names[p] for p in order]
    value_N, weight_N, seed_N = (rows[name].to_numpy() for name in ("value", "weight", "seed"))
    parts = {int(seed): np.flatnonzero(seed_N == seed) for seed in np.unique(seed_N)}
    # A group may lack a seed (a match that failed): it is pooled over those it has.
    races: list[tuple[int, ...]] = [()] * len(keys)
    for seed, own in parts.items():
        for g in np.unique(group_N[own]):
            races[g] += (seed,)
    pooled = _Estimate(len(keys), resamples, run_seed, draws)
    for seed, own in parts.items():
        sums = _sums(seed, group_N[own], photo_N[own], value_N[own], weight_N[own], names)
        alone = _Estimate(len(sums.groups), resamples, run_seed, draws)
        alone.add(sums, np.arange(len(sums.groups)), [(seed,)] * len(sums.groups))
        of_seed = alone.groups([keys[g] for g in sums.groups])
        yield seed, of_seed
        if len(parts) == 1:
            # Of a single seed, pooled is the same as its own.
            yield None, of_seed
            return
        pooled.add(sums, sums.groups, [races[g] for g in sums.groups])
    yield None, pooled.groups(keys)


@dataclass(frozen=True)
class _Sums:
    """The rows of one seed, added up per group and photo."""

    seed: int
    groups: Indices
    """The g groups that it has, in the order of their first rows."""
    photos: list[str]
    """Its P photos, sorted."""
    sums_2gP: Floats
    """Of values and of weights."""
    measured_gP: npt.NDArray[np.bool_]
    n_g: Counts


def _sums(
    seed: int, group_N: Indices, photo_N: Indices, value_N: Floats, weight_N: Floats, names: Sequence[str]
) -> _Sums:
    own_N, groups = _in_order(group_N)
    found_P, column_N = np.unique(photo_N, return_inverse=True)
    shape = (len(groups), len(found_P))
    cell_N = own_N * len(found_P) + column_N
    measured_gP = np.zeros(shape, dtype=np.bool_)
    measured_gP.reshape(-1)[cell_N] = True
    n_g = np.bincount(own_N[weight_N > 0], minlength=len(groups))
    sums = [np.bincount(cell_N, weights=of_N, minlength=measured_gP.size) for of_N in (value_N, weight_N)]
    sums_2gP: Floats = np.stack([of.reshape(shape) for of in sums]).astype(np.float64, copy=False)
    return _Sums(seed, groups, [names[p] for p in found_P], sums_2gP, measured_gP, n_g)


class _Estimate:
    """Adds up seeds: what every group was measured to be, and would be in each resample."""

    def __init__(self, groups: int, resamples: int, run_seed: int, draws: Draws) -> None:
        self._sums_2G = np.zeros((2, groups))
        self._drawn_2GR = np.zeros((2, groups, resamples))
        self._n_G = np.zeros(groups, dtype=np.int64)
        self._photos: list[MeasuredOn] = [()] * groups
        self._resamples, self._run_seed, self._draws = resamples, run_seed, draws

    def add(self, sums: _Sums, place_g: Indices, race_g: Sequence[tuple[int, ...]]) -> None:
        """The rows of a seed; `place_g` of its groups here, `race_g`: the seeds over which each is pooled."""
        self._sums_2G[:, place_g] += sums.sums_2gP.sum(2)
        self._n_G[place_g] += sums.n_g
        # Groups on the same photos and seeds share one draw.
        alike: dict[tuple[bytes, tuple[int, ...]], list[int]] = {}
        for g, photos in enumerate(np.packbits(sums.measured_gP, axis=1)):
            alike.setdefault((photos.tobytes(), race_g[g]), []).append(g)
        for (_, race), chosen in alike.items():
            chosen.sort(key=place_g.__getitem__)
            photos_P = np.flatnonzero(sums.measured_gP[chosen[0]])
            names = [sums.photos[p] for p in photos_P]
            times_R = seed_counts(self._run_seed, race, self._resamples)[:, race.index(sums.seed)]
            counts_RP = self._draws.photo_counts(self._run_seed, sums.seed, names, times_R)
            self._drawn_2GR[:, place_g[chosen]] += sums.sums_2gP[:, chosen][:, :, photos_P] @ counts_RP.T
            measured_on = ((sums.seed, names_digest(names)),)
            for g in place_g[chosen]:
                self._photos[g] += measured_on

    def groups(self, keys: list[Key]) -> Groups:
        """After the last seed."""
        drawn_2GR = self._drawn_2GR
        value_G = ratio(self._sums_2G[0], self._sums_2G[1])
        return Groups(keys, self._photos, value_G, ratio(drawn_2GR[0], drawn_2GR[1]), self._n_G)


def _groups(rows: pa.Table) -> tuple[Indices, list[Key]]:
    """Group of every row, and the groups in the order of their first rows."""
    columns = [_encoded(rows[name]) for name in Key._fields]
    code_N = np.zeros(rows.num_rows, dtype=np.int64)
    for of_N, values in columns:
        # Numbered anew each time: products of the numbers of values stay small.
        code_N, _ = _in_order(code_N * len(values) + of_N)
    first = np.unique(code_N, return_index=True)[1]
    found = [[values[code] for code in of_N[first]] for of_N, values in columns]
    return code_N, [Key(*key) for key in zip(*found, strict=True)]


def _in_order(code_N: Indices) -> tuple[Indices, Indices]:
    """The same numbered from 0 in the order of first appearance, and what each number stood for."""
    encoded = pa.array(code_N).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_numpy()


def _encoded(column: pa.ChunkedArray) -> tuple[Indices, list[Any]]:
    """Value of every row as a number, and the values, in the order of first appearance."""
    encoded = pc.dictionary_encode(column.combine_chunks(), null_encoding="encode")
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
