"""Hierarchical bootstrap: seeds are drawn with replacement, then photos within each drawn seed.

A resample is a vector of counts per photo. All groups of rows about the same photos share the same counts (their draw
is named by run seed, seed and photos), so a thousand groups cost one matrix product, curves are resampled as a whole,
and the difference of two defenders is paired by photo and seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tsdf_ray.randomness import numpy_rng

LEVELS = (0.025, 0.975)
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def seed_counts(run_seed: int, seeds: Sequence[int], resamples: int) -> Counts:
    """How often each seed is drawn, int [R, S]; every row sums to S. One seed: always once."""
    n = len(seeds)
    rng = numpy_rng(run_seed, "metrics", "bootstrap", "seeds", *seeds)
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples)


def photo_counts(run_seed: int, seed: int, photos: Sequence[str], times_R: Counts) -> Counts:
    """How often each photo is drawn when its seed was drawn times_R[r] times: int [R, P], rows sum to times * P."""
    n = len(photos)
    names = hashlib.sha256("\x1f".join(photos).encode()).hexdigest()
    rng = numpy_rng(run_seed, "metrics", "bootstrap", "photos", seed, names)
    # A seed drawn k times has k independent draws of P photos: together one draw of k * P.
    return rng.multinomial(times_R * n, np.full(n, 1 / n))


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
