"""Groups of rows (one metric, one stage), their estimates, and the same estimates over bootstrap resamples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tsdf_ray.metrics.bootstrap import Counts, Floats, photo_counts, ratio, seed_counts

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["defender", "attacker", "round", "judged_round", "step_share", "phase", "split", "model", "metric"]
"""Rows that agree in these are one group."""


@dataclass(frozen=True)
class Groups:
    """G groups and their R resamples."""

    keys: pd.DataFrame
    """KEYS of each group, in the order of their first rows, and `photos`: the seeds and photos it was measured on."""
    value_G: Floats
    """sum(value) / sum(weight); NaN where the weights are zero."""
    replicates_GR: Floats
    """The same over resampled seeds and photos; a replicate that draws no weight is NaN."""
    n_G: Counts
    """Rows with a weight."""


def resample(rows: pd.DataFrame, resamples: int, run_seed: int) -> Groups:
    """Estimates and bootstrap estimates of every group of `rows` over all its seeds; `rows` are never changed."""
    from pandas import factorize  # only the driver aggregates: role processes go without pandas

    group_N = rows.groupby(KEYS, sort=False, dropna=False).ngroup().to_numpy()
    first = np.unique(group_N, return_index=True)[1]
    keys = rows.iloc[first][KEYS].reset_index(drop=True)
    seeds = sorted(set(rows["seed"].tolist()))
    seed_N = np.searchsorted(seeds, rows["seed"].to_numpy())
    present_GS = np.zeros((len(keys), len(seeds)), dtype=np.bool_)
    present_GS[group_N, seed_N] = True

    sums_2G = np.zeros((2, len(keys)))
    drawn_2GR = np.zeros((2, len(keys), resamples))
    n_G = np.zeros(len(keys), dtype=np.int64)
    photos_G = [""] * len(keys)
    for s, seed in enumerate(seeds):
        own = seed_N == s
        photo_N, names = factorize(rows["photo"][own], sort=True)
        cell_N = group_N[own] * len(names) + photo_N
        value_N, weight_N = rows["value"].to_numpy()[own], rows["weight"].to_numpy()[own]
        shape = (len(keys), len(names))
        sums_2GP = np.stack([_per_cell(cell_N, of, shape) for of in (value_N, weight_N)])
        sums_2G += sums_2GP.sum(2)
        n_G += _per_cell(cell_N, weight_N > 0, shape).sum(1).astype(np.int64)
        measured_GP = _per_cell(cell_N, np.ones(len(cell_N)), shape) > 0
        # Groups on the same photos and seeds share one draw; a group may lack a seed (a match that failed).
        for chosen, photos_P in _alike(measured_GP, present_GS):
            if not len(photos_P):
                continue
            race = [other for other, there in zip(seeds, present_GS[chosen[0]], strict=True) if there]
            times_R = seed_counts(run_seed, race, resamples)[:, race.index(seed)]
            ids = [str(names[p]) for p in photos_P]
            counts_RP = photo_counts(run_seed, seed, ids, times_R).astype(np.float64)
            drawn_2GR[:, chosen] += sums_2GP[:, chosen][:, :, photos_P] @ counts_RP.T
            for g in chosen:
                photos_G[g] += "\x1e".join([str(seed), *ids, ""])
    keys["photos"] = photos_G
    return Groups(keys, ratio(sums_2G[0], sums_2G[1]), ratio(drawn_2GR[0], drawn_2GR[1]), n_G)


def _per_cell(cell_N: npt.NDArray[np.int64], of_N: npt.NDArray[np.generic], shape: tuple[int, int]) -> Floats:
    """Sums over the rows of each (group, photo)."""
    flat = np.bincount(cell_N, weights=of_N.astype(np.float64), minlength=shape[0] * shape[1])
    return flat.astype(np.float64).reshape(shape)


def _alike(
    measured_GP: npt.NDArray[np.bool_], present_GS: npt.NDArray[np.bool_]
) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Groups with the same photos and the same seeds: (their indices, the photos)."""
    both = np.concatenate([measured_GP, present_GS], axis=1)
    kinds, kind_G = np.unique(both, axis=0, return_inverse=True)
    photos = measured_GP.shape[1]
    return [(np.flatnonzero(kind_G.reshape(-1) == k), np.flatnonzero(kind[:photos])) for k, kind in enumerate(kinds)]
