"""`measure`: what a protection does to detectors, to the eye and to forgeries, over a whole collection.

Rows are those of a run (`tsdf_ray.metrics.ROWS`), a Parquet part for each part of the protected collection. Values are
sum(value) / sum(weight) over all rows. Intervals are percentiles of a Poisson bootstrap over photos: every photo counts
Poisson(1) times in a resample, drawn by part, so that parts are added up and no row has to stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.collections.collection import Collection
from actors.collections.places import opened
from actors.collections.readings import Reading
from actors.collections.workers import decoded, squares
from tsdf_ray.detectors import load_detector
from tsdf_ray.errors import UserError
from tsdf_ray.faces import FaceSet
from tsdf_ray.generators import Family, load_family
from tsdf_ray.judges import load_judge
from tsdf_ray.metrics import Evaluator, Stage, make_rows
from tsdf_ray.metrics.bootstrap import interval, ratio
from tsdf_ray.metrics.published import PublishedEvaluator
from tsdf_ray.randomness import numpy_rng

RESAMPLES = 1000
KEYS = ("phase", "model", "metric")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Parts of the clean source, each with the protected part of the same number."""

    clean: Reading
    protected: Collection

    @property
    def first(self) -> int:
        """Number of the first part."""
        return self.clean.first

    @property
    def counts(self) -> tuple[int, ...]:
        """Photos of each part."""
        return self.clean.counts

    @property
    def bytes(self) -> int:
        """About as many again are read of the protected photos, as PNG."""
        return self.clean.bytes * 2

    def read(self, wanted: frozenset[int]) -> Iterator[tuple[int, pa.Table]]:
        """Clean photos and labels, with the column `published`. Raises UserError where the photos are not the same."""
        for number, photos in self.clean.read(wanted):
            place = self.protected.part(number)
            with opened(place) as parquet:
                published = parquet.read(columns=["id", "image"])
            if published["id"].to_pylist() != photos["id"].to_pylist():
                raise UserError(
                    f"{place.name}: holds other photos than the clean source there; give the source it was made of"
                )
            yield number, photos.append_column("published", published["image"].cast(pa.large_binary()))


class Measure:
    """Rows of a part: `measured` for every photo, the others for those that could be compared."""

    def __init__(self, detectors: Mapping[str, Path | None], size: int, forger: tuple[str, str, str] | None) -> None:
        self._detectors = {name: load_detector(name, weights) for name, weights in detectors.items()}
        self._size = size
        self._family: Family | None = None
        if forger is not None:
            weights, self._judge, self._precision = forger
            self._family = load_family(weights).freeze()

    def __call__(self, part: pa.Table) -> pa.Table:
        """Columns of `ROWS`. Raises UserError when forgeries are asked for and labels are missing."""
        bad: dict[int, str] = {}
        names = [name or f"(row {row})" for row, name in enumerate(part["id"].to_pylist())]
        tables = []
        used: set[int] = set()
        published = part.set_column(1, "image", part["published"]).set_column(
            2, "problem", pa.nulls(part.num_rows, pa.string())
        )
        for clean in decoded(part, bad):
            taken, photos = squares(clean, self._size, None, bad)
            rows = [photo.row for photo in taken]
            unpublished: dict[int, str] = {}
            found = [photo for batch in decoded(published.take(rows), unpublished) for photo in batch]
            kept, after = squares(found, self._size, None, unpublished)
            if not kept:
                continue
            used.update(rows[photo.row] for photo in kept)
            both = [photo.row for photo in kept]
            tables += self._rows(part.take([rows[k] for k in both]), photos.take(both), after)
        flags = np.array([row in used for row in range(part.num_rows)])
        return pa.concat_tables([make_rows(Stage(1, 1, "collection"), names, {"measured": flags}), *tables])

    def _rows(self, rows: pa.Table, clean: FaceSet, published: FaceSet) -> list[pa.Table]:
        judged = PublishedEvaluator(self._detectors, clean)
        found = [
            judged.detection_rows(Stage(1, 1, "detection"), published),
            judged.visibility_rows(Stage(1, 1, "visibility"), published),
        ]
        if self._family is None:
            return found
        family = self._family
        missing = [name for name in family.attributes if name not in rows.column_names]
        if missing:
            raise UserError(
                f"the clean source has no column {missing[0]!r}: forgeries by {family.name} need the labels"
                f" {', '.join(family.attributes)}; add them, or leave --forgeries out"
            )
        labels_BA = np.stack([np.asarray(rows[name].to_numpy(), np.uint8) for name in family.attributes], 1)
        labelled = FaceSet(clean.pixels_BCHW, labels_BA, family.attributes, clean.ids)
        judge = load_judge(self._judge, family.attributes)
        forged = Evaluator(judge, {}, labelled, family, precision=self._precision)
        stage = Stage(1, 0, "transfer")
        return [*found, forged.forgery_rows(stage, family, labelled.with_pixels(published.pixels_BCHW))]


def summarise(rows: Iterator[pa.Table], resamples: int = RESAMPLES) -> list[dict[str, Any]]:
    """Values with 95 % intervals from the rows of all parts, one table per part."""
    sums: dict[tuple[str, ...], list[Any]] = {}
    for part, table in enumerate(rows):
        frame = table.to_pandas()
        photo, names = frame["photo"].factorize()
        times_RP = (
            numpy_rng(0, "collections", "bootstrap", part).poisson(1.0, (resamples, len(names))).astype(np.float64)
        )
        for key, group in frame.groupby(list(KEYS), sort=False):
            place = photo[group.index]
            value_P, weight_P = (
                np.bincount(place, group[column].to_numpy(), len(names)) for column in ("value", "weight")
            )
            total = sums.setdefault(key, [0.0, 0.0, np.zeros(resamples), np.zeros(resamples), 0])
            for at, added in enumerate((value_P.sum(), weight_P.sum(), times_RP @ value_P, times_RP @ weight_P)):
                total[at] += added
            total[4] += int((weight_P > 0).sum())
    found = []
    for key, (value, weight, values_R, weights_R, n) in sorted(sums.items()):
        low, high = (float(bound[0]) for bound in interval(ratio(values_R, weights_R)[None]))
        known = (
            {"value": value / weight, "low": low, "high": high}
            if weight > 0
            else dict.fromkeys(("value", "low", "high"))
        )
        found.append(dict(zip(KEYS, key, strict=True)) | known | {"n": n})
    return found
