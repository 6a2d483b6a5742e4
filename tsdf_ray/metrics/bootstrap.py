"""Hierarchical bootstrap: seeds are drawn with replacement, then photos within each drawn seed.

A resample is a vector of counts per photo. All groups of rows about the same photos share the same counts (their draw
is named by run seed, seed and photos), so a thousand groups cost one matrix product, curves are resampled as a whole,
and the difference of two defenders is paired by photo and seed. So do pairs of players: `Draws` keeps what it drew.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tsdf_ray.randomness import numpy_rng

LEVELS = (0.025, 0.975)
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
KEPT_BYTES = 128 << 20
"""Of drawn counts, a byte each as a rule: 1,000 resamples of 128,000 photos, in all seeds together."""


def seed_counts(run_seed: int, seeds: Sequence[int], resamples: int) -> Counts:
    """How often each seed is drawn, int [R, S]; every row sums to S. One seed: always once."""
    n = len(seeds)
    rng = numpy_rng(run_seed, "metrics", "bootstrap", "seeds", *seeds)
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples)


def photo_counts(run_seed: int, seed: int, photos: Sequence[str], times_R: Counts) -> Counts:
    """How often each photo is drawn when its seed was drawn times_R[r] times: int [R, P], rows sum to times * P."""
    n = len(photos)
    rng = numpy_rng(run_seed, "metrics", "bootstrap", "photos", seed, names_digest(photos))
    # A seed drawn k times has k independent draws of P photos: together one draw of k * P.
    return rng.multinomial(times_R * n, np.full(n, 1 / n))


def names_digest(photos: Sequence[str]) -> str:
    """Names a set of photos, given in one order."""
    return hashlib.sha256("\x1f".join(photos).encode()).hexdigest()


class Draws:
    """`photo_counts`, remembered: all pairs of a run are judged on the same photos, so their draws are the same.

    Holds at most `most_bytes`; what was not asked for longest goes first. For one thread.
    """

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._kept: OrderedDict[tuple[int, int, str, bytes], npt.NDArray[np.unsignedinteger]] = OrderedDict()

    def photo_counts(self, run_seed: int, seed: int, photos: Sequence[str], times_R: Counts) -> Floats:
        """As the function of that name, as floats [R, P], which are the caller's."""
        key = run_seed, seed, names_digest(photos), times_R.tobytes()
        kept = self._kept.get(key)
        if kept is None:
            counts_RP = photo_counts(run_seed, seed, photos, times_R)
            kept = counts_RP.astype(np.min_scalar_type(int(counts_RP.max(initial=0))))
            self._kept[key] = kept
            self._bytes += kept.nbytes
            while self._bytes > self._most:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        else:
            self._kept.move_to_end(key)
        return kept.astype(np.float64)


def interval(replicates_GR: Floats) -> tuple[Floats, Floats]:
    """2.5 % and 97.5 % percentiles over the last axis, [G] each.

    NaN replicates (undefined: zero weight drawn) are left out, infinite ones (a half-life not reached) count;
    percentiles are replicates themselves, never interpolated. NaN where every replicate is NaN.
    """
    ordered = np.sort(replicates_GR, axis=-1)  # NaN last
    known = (~np.isnan(ordered)).sum(-1)
    bounds = []
    for level in LEVELS:
        place = np.clip(np.ceil(level * known).astype(np.int64) - 1, 0, np.maximum(known - 1, 0))
        bounds.append(np.take_along_axis(ordered, place[..., None], -1)[..., 0])
    return bounds[0], bounds[1]


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """numerator / denominator; NaN where the denominator is zero."""
    safe = np.where(denominator > 0, denominator, 1.0)
    value: Floats = np.where(denominator > 0, numerator / safe, np.nan)
    return value
