"""How far apart two sets of forgeries are: Fréchet distance and kernel distance over the features of a network.

With the features of an Inception these are FID (Heusel et al. 2017) and KID (Bińkowski et al. 2018); with another
network they are something else, so a metric's name ends with the network's: `frechet_judge`, `kernel_judge`. The two
sets are the forgeries of the published and of the clean photos, paired by photo and edit.

A set has one number, the rows have one per photo. So they hold jackknife pseudo-values (Tukey 1958): their mean is the
number itself, and the bootstrap over photos that every other metric gets gives this one its jackknife interval. Small
sets have no distance worth a number: see LEAST and `frechet_least`. Sets that do not fit into memory: set_parts.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tsdf_ray.metrics.rows import Array

LEAST = 200
"""Forgeries in each set from which a distance is given."""

Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
_BLOCK = 512
"""Rows of a kernel matrix at a time."""


class SetPairs(NamedTuple):
    """Two sets of forgeries by what a network sees in them. Row p of both is one pair, of photo photo_P[p]."""

    forged_PD: npt.NDArray[np.floating]
    clean_PD: npt.NDArray[np.floating]
    photo_P: Index


def frechet_least(width: int) -> int:
    """Forgeries needed for a Fréchet distance: two per feature, or the covariances say more of the sample size."""
    return max(LEAST, 2 * width)


def enough(kind: str, forgeries: int, photos: int, width: int) -> bool:
    """Are these enough for a distance? `kind`: frechet or kernel; `forgeries` in each set."""
    return forgeries >= (frechet_least(width) if kind == "frechet" else LEAST) and photos > 1


def set_measures(name: str, pairs: SetPairs, photos: int) -> dict[str, tuple[Array, Array]]:
    """Metrics frechet_NAME and kernel_NAME as pseudo-values of each of `photos`; weight 0 where sets are too small."""
    x, y = np.asarray(pairs.forged_PD, np.float64), np.asarray(pairs.clean_PD, np.float64)
    measures: dict[str, tuple[Array, Array]] = {}
    for kind, distance in (("frechet", frechet), ("kernel", kernel)):
        value_B, known = np.zeros(photos), enough(kind, len(x), photos, x.shape[1])
        if known:
            value_B = distance(x, y, pairs.photo_P, photos)[1]
        measures[f"{kind}_{name}"] = value_B, np.full(photos, float(known))
    return measures


def kernel(x_PD: Floats, y_PD: Floats, photo_P: Index, photos: int) -> tuple[float, Floats]:
    """The squared MMD with KID's kernel (x·y / D + 1)^3, without bias, and its pseudo-values [B].

    The sets are paired, so it is the U-statistic of Gretton et al. 2012, Lemma 6, over pairs of forgeries of different
    photos; KID's own form, for independent sets, would also compare a forgery with its twin. Identical sets are at 0,
    others may come out below it.
    """
    sum_B, pairs_B = np.zeros(photos), np.zeros(photos)
    for start in range(0, len(x_PD), _BLOCK):
        rows = slice(start, start + _BLOCK)
        x, y = x_PD[rows], y_PD[rows]
        h = _poly(x, x_PD) + _poly(y, y_PD) - _poly(x, y_PD) - _poly(y, x_PD)
        other = photo_P[rows, None] != photo_P[None]
        sum_B += np.bincount(photo_P[rows], (h * other).sum(1), photos)
        pairs_B += np.bincount(photo_P[rows], other.sum(1), photos)
    value = float(sum_B.sum() / pairs_B.sum())
    # Without a photo, its row and its column are gone.
    without_B = (sum_B.sum() - 2 * sum_B) / np.maximum(pairs_B.sum() - 2 * pairs_B, 1)
    return value, value + (photos - 1) * (without_B.mean() - without_B)


def _poly(a: Floats, b: Floats) -> Floats:
    kernel: Floats = (a @ b.T / a.shape[1] + 1.0) ** 3
    return kernel


def frechet(x_PD: Floats, y_PD: Floats, photo_P: Index, photos: int) -> tuple[float, Floats]:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2), and its pseudo-values [B].

    Leaving every photo out in turn would need a decomposition each; the derivative by a photo's weight does as well
    (the infinitesimal jackknife, Jaeckel 1972). Means and covariances are those of normal distributions fitted to
    the sets.
    """
    between = Frechet(Moments.of(x_PD), Moments.of(y_PD))
    slope_P = between.slopes(x_PD, y_PD)
    slope_P -= slope_P.mean()
    slope_B = np.bincount(photo_P, slope_P, photos) / len(x_PD)
    return between.value, between.value + photos * slope_B


@dataclass(frozen=True)
class Moments:
    """Of a set of vectors what a Fréchet distance needs; those of parts of a set add up to its own."""

    count: int
    mean_D: Floats
    scatter_DD: Floats
    """Sum of the outer products of the vectors' deviations from their mean: sums about zero would lose digits."""

    @staticmethod
    def of(x_PD: Floats) -> Moments:
        """Of at least one vector."""
        mean_D = x_PD.mean(0)
        x = x_PD - mean_D
        return Moments(len(x), mean_D, x.T @ x)

    def plus(self, other: Moments) -> Moments:
        """Of both sets together (Chan, Golub and LeVeque 1979)."""
        count, apart_D = self.count + other.count, other.mean_D - self.mean_D
        between_DD = np.outer(apart_D, apart_D) * (self.count * other.count / count)
        mean_D = self.mean_D + apart_D * (other.count / count)
        return Moments(count, mean_D, self.scatter_DD + other.scatter_DD + between_DD)

    def covariance(self) -> Floats:
        """Without bias, [D, D]."""
        covariance_DD: Floats = self.scatter_DD / (self.count - 1)
        return covariance_DD


class Frechet:
    """The Fréchet distance of two paired sets by their moments, and its derivative by the weight of each pair."""

    def __init__(self, x: Moments, y: Moments) -> None:
        c1, c2 = x.covariance(), y.covariance()
        self._x, self._y, self._apart_D = x, y, x.mean_D - y.mean_D
        root2, _ = _roots(c2)
        inner, inverse = _roots(root2 @ c1 @ root2)
        traces = np.trace(c1) + np.trace(c2) - 2 * np.trace(inner)
        self.value = max(float(self._apart_D @ self._apart_D + traces), 0.0)
        self._to_y = root2 @ inverse @ root2  # the optimal transport from the first distribution to the second
        root1, _ = _roots(c1)
        self._to_x = root1 @ _roots(root1 @ c2 @ root1)[1] @ root1

    def slopes(self, x_PD: Floats, y_PD: Floats) -> Floats:
        """Of some pairs, [P]; what all pairs have in common (`mean_slope`) is still in them."""
        x, y = x_PD - self._x.mean_D, y_PD - self._y.mean_D
        slope_P: Floats = (
            2 * (x - y) @ self._apart_D + (x * (x - x @ self._to_y)).sum(1) + (y * (y - y @ self._to_x)).sum(1)
        )
        return slope_P

    def mean_slope(self) -> float:
        """The mean of the slopes of all pairs."""
        scatters = (self._x.scatter_DD, self._to_y), (self._y.scatter_DD, self._to_x)
        return float(sum(np.trace(scatter) - (scatter * to).sum() for scatter, to in scatters)) / self._x.count


def _roots(matrix: Floats) -> tuple[Floats, Floats]:
    """Square root of a symmetric matrix without negative eigenvalues, and the inverse of the root where it has one."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    values = np.maximum(values, 0.0)
    rooted = np.sqrt(values)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    inverse = np.where(kept, 1.0 / np.where(kept, rooted, 1.0), 0.0)
    return (vectors * rooted) @ vectors.T, (vectors * inverse) @ vectors.T
