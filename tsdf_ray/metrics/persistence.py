"""How long an interruption lasts: half-life and area under the curve of SR_mask over retraining.

All functions take curves [..., K] over the same K points x (retraining steps, shares of them, or rounds after
publication), so that a bootstrap passes all its resampled curves at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def half_life(x_K: Floats, y_K: Floats) -> Floats:
    """[...]: where the curve first falls under half of its start, by linear interpolation between the points.

    Infinite when it does not within the points (censored at x_K[-1]); NaN when it starts at zero or a point is missing.
    """
    y = np.asarray(y_K, dtype=np.float64)
    x = np.asarray(x_K, dtype=np.float64)
    half = y[..., :1] / 2
    under = y < half
    first = np.maximum(under.argmax(-1), 1)[..., None]
    before, after = np.take_along_axis(y, first - 1, -1)[..., 0], np.take_along_axis(y, first, -1)[..., 0]
    x_before, x_after = x[first[..., 0] - 1], x[first[..., 0]]
    drop = before - after
    share = (before - half[..., 0]) / np.where(drop > 0, drop, 1.0)
    crossing: Floats = np.where(under.any(-1), x_before + share * (x_after - x_before), np.inf)
    return np.where(_defined(y), crossing, np.nan)


def area(x_K: Floats, y_K: Floats) -> Floats:
    """[...]: area under the curve (trapezoids) over what a curve that stays at its start would have: 1 is no decay.

    NaN when the curve starts at zero or a point is missing. Needs x_K[0] < x_K[-1].
    """
    y = np.asarray(y_K, dtype=np.float64)
    x = np.asarray(x_K, dtype=np.float64)
    under = ((y[..., 1:] + y[..., :-1]) / 2 * np.diff(x)).sum(-1)
    start = np.where(_defined(y), y[..., 0], np.nan)
    normalised: Floats = under / (start * (x[-1] - x[0]))
    return normalised


def _defined(y_K: Floats) -> npt.NDArray[np.bool_]:
    defined: npt.NDArray[np.bool_] = np.isfinite(y_K).all(-1) & (y_K[..., 0] > 0)
    return defined
