"""Distances of sets of forgeries (sets.py) that do not fit into memory: what is kept of a part of the photos, and how
parts add up.

The Fréchet distance needs means and covariances, and those of parts add up exactly. The kernel distance looks at every
pair of photos, so it is computed on SAMPLE of them, chosen by a hash of their names: the same ones whatever the parts,
their order and who computed them. All photos are in the sample where there are no more; then it is the distance of
sets.py. Intervals are the jackknife's standard error, of the Fréchet distance from its slopes at the sampled photos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tsdf_ray.metrics.aggregate import reason_for
from tsdf_ray.metrics.sets import Floats, Frechet, Index, Moments, SetPairs, enough, kernel

SAMPLE = 1000
"""Photos, at most, on which the kernel distance is computed."""
SPARE = 4
"""So many times as many candidates are kept, where there are more photos: some of them cannot be measured."""
SIDES = ("forged", "clean")


@dataclass(frozen=True)
class SetPart:
    """Two sets of forgeries of a part of the photos."""

    photos: int
    forged: Moments
    clean: Moments
    draw_S: npt.NDArray[np.uint64]
    """Of the sampled photos; those with the smallest are the sample."""
    pairs: SetPairs
    """Of the sampled photos; its photo_P is an index of `draw_S`."""

    @staticmethod
    def of(names: Sequence[str], pairs: SetPairs, total: int) -> SetPart:
        """`pairs` of the photos called `names`; `total`: photos of all parts together, measured or not."""
        draw_B = np.array([_draw(name) for name in names], np.uint64)
        limit = 2**64 * SPARE * SAMPLE // max(total, 1)
        kept_S = np.flatnonzero(draw_B < np.uint64(limit)) if limit < 2**64 else np.arange(len(draw_B))
        forged, clean = (Moments.of(np.asarray(vectors, np.float64)) for vectors in pairs[:2])
        return SetPart(len(names), forged, clean, draw_B[kept_S], _of_photos(pairs, kept_S))

    def plus(self, other: SetPart) -> SetPart:
        """Both parts together, with no more than SAMPLE photos in the sample."""
        draw_S = np.concatenate([self.draw_S, other.draw_S])
        moved = other.pairs.photo_P + len(self.draw_S)
        pairs = SetPairs(*(np.concatenate(both) for both in zip(self.pairs, (*other.pairs[:2], moved), strict=True)))
        photos = self.photos + other.photos
        whole = SetPart(photos, self.forged.plus(other.forged), self.clean.plus(other.clean), draw_S, pairs)
        return whole.sampled()

    def sampled(self) -> SetPart:
        """The sample alone, in its own order, which parts do not change."""
        kept_S = np.argsort(self.draw_S, kind="stable")[:SAMPLE]
        return SetPart(self.photos, self.forged, self.clean, self.draw_S[kept_S], _of_photos(self.pairs, kept_S))

    def content(self) -> bytes:
        """For a file; of a scatter, which is symmetric, one half."""
        tensors: dict[str, npt.NDArray[np.generic]] = {
            "counts": np.array([self.photos, self.forged.count], np.int64),
            "draw": self.draw_S,
            "photo": np.asarray(self.pairs.photo_P, np.int64),
        }
        for side, moments, vectors in zip(SIDES, (self.forged, self.clean), self.pairs[:2], strict=True):
            half = moments.scatter_DD[np.triu_indices(len(moments.mean_D))]
            tensors |= {f"{side}.mean": moments.mean_D, f"{side}.scatter": half}
            tensors[f"{side}.sample"] = np.ascontiguousarray(vectors, np.float32)
        content: bytes = save(tensors)
        return content

    @staticmethod
    def read(content: bytes) -> SetPart | None:
        """Back from a file; None: of a part without any forgery. Raises ValueError when it is damaged."""
        try:
            tensors = load(content)
            photos, count = (int(number) for number in tensors["counts"])
            if count == 0:
                return None
            moments = []
            for side in SIDES:
                mean_D = tensors[f"{side}.mean"]
                scatter_DD = np.zeros((len(mean_D), len(mean_D)))
                scatter_DD[np.triu_indices(len(mean_D))] = tensors[f"{side}.scatter"]
                moments.append(Moments(count, mean_D, scatter_DD + np.triu(scatter_DD, 1).T))
            pairs = SetPairs(tensors["forged.sample"], tensors["clean.sample"], tensors["photo"])
            return SetPart(photos, moments[0], moments[1], tensors["draw"], pairs)
        except (SafetensorError, KeyError) as error:
            raise ValueError(str(error)) from error


NOTHING: bytes = save({"counts": np.zeros(2, np.int64)})
"""`content` of a part without any forgery."""


def together(parts: Iterable[SetPart | None]) -> SetPart | None:
    """All parts, one in memory at a time; None: there is no forgery at all."""
    whole: SetPart | None = None
    for part in parts:
        if part is not None:
            whole = part.sampled() if whole is None else whole.plus(part)
    return whole


@dataclass(frozen=True)
class Distance:
    """One distance of sets with its 95 % interval; no value where there are too few forgeries, for a `reason`."""

    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    """Photos it was computed on."""
    reason: str | None = None


def distances(name: str, whole: SetPart | None) -> list[Distance]:
    """frechet_NAME and kernel_NAME of all parts together."""
    found = []
    for kind, distance in (("frechet", _frechet), ("kernel", _kernel)):
        metric = f"{kind}_{name}"
        done = distance(whole) if whole is not None else None
        if done is None:
            found.append(Distance(metric, None, None, None, 0, reason_for(metric)))
        else:
            value, error, photos = done
            found.append(Distance(metric, value, value - 1.96 * error, value + 1.96 * error, photos))
    return found


def _frechet(whole: SetPart) -> tuple[float, float, int] | None:
    """(value, standard error, photos), None: too few forgeries."""
    width, sampled = len(whole.forged.mean_D), len(whole.draw_S)
    # Without two sampled photos there is no error; some of so many are sampled.
    if not enough("frechet", whole.forged.count, whole.photos, width) or sampled < 2:
        return None
    between = Frechet(whole.forged, whole.clean)
    slope_P = between.slopes(*(vectors.astype(np.float64) for vectors in whole.pairs[:2])) - between.mean_slope()
    pseudo_S = np.bincount(whole.pairs.photo_P, slope_P, sampled) * (whole.photos / whole.forged.count)
    return between.value, _error(pseudo_S.astype(np.float64), whole.photos), whole.photos


def _kernel(whole: SetPart) -> tuple[float, float, int] | None:
    """(value, standard error, photos), None: too few forgeries."""
    pairs, photos = whole.pairs, len(whole.draw_S)
    if not enough("kernel", len(pairs.photo_P), photos, pairs.forged_PD.shape[1]):
        return None
    vectors = [side.astype(np.float64) for side in pairs[:2]]
    value, pseudo_S = kernel(vectors[0], vectors[1], pairs.photo_P, photos)
    return value, _error(pseudo_S, photos), photos


def _error(pseudo_S: Floats, photos: int) -> float:
    """Of the mean of so many pseudo-values, of which these are some."""
    return float(pseudo_S.std(ddof=1)) / float(np.sqrt(photos))


def _draw(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def _of_photos(pairs: SetPairs, kept_S: Index) -> SetPairs:
    """Those of some photos, in their order; photo_P counts in `kept_S`."""
    place = np.full(max(int(pairs.photo_P.max(initial=-1)), int(kept_S.max(initial=-1))) + 1, -1)
    place[kept_S] = np.arange(len(kept_S))
    place_P = place[pairs.photo_P]
    order = np.argsort(place_P, kind="stable")
    order = order[place_P[order] >= 0]
    return SetPairs(pairs.forged_PD[order], pairs.clean_PD[order], place_P[order])
