"""`measure`: what a protection does to detectors, to the eye and to forgeries, over a whole collection.

Rows are those of a run (`tsdf_ray.metrics.ROWS`), a Parquet part for each part of the protected collection. Values are
sum(value) / sum(weight) over all rows. Intervals are percentiles of a Poisson bootstrap over photos: every photo counts
Poisson(1) times in a resample, drawn by part, so that parts are added up and no row has to stay in memory. Distances
of sets of forgeries come from what is kept of each part beside it (`tsdf_ray.metrics.set_parts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.collections.collection import BESIDE, Collection
from actors.collections.places import opened
from actors.collections.readings import Reading
from actors.collections.workers import decoded, squares
from tsdf_ray.detectors import load_detector
from tsdf_ray.errors import UserError
from tsdf_ray.faces import FaceSet
from tsdf_ray.files import located
from tsdf_ray.game.networks import feature_network
from tsdf_ray.generators import Family, load_family
from tsdf_ray.judges import load_judge
from tsdf_ray.metrics import Evaluator, Stage, make_rows
from tsdf_ray.metrics.aggregate import reason_for
from tsdf_ray.metrics.bootstrap import interval, ratio
from tsdf_ray.metrics.published import PublishedEvaluator
from tsdf_ray.metrics.set_parts import NOTHING, SAMPLE, SetPart, distances, together
from tsdf_ray.metrics.sets import SetPairs
from tsdf_ray.randomness import numpy_rng
from tsdf_ray.scenario import Evaluation, Scenario

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


@dataclass(frozen=True)
class Forging:
    """With what photos are forged, and what looks at the forgeries: as a match's evaluator does it."""

    generator: str
    judge: str
    precision: str
    networks: Evaluation
    """Of which the network counts that compares sets."""
    photos: int
    """Of all parts."""

    @classmethod
    def of(cls, game: Scenario, photos: int) -> Self:
        """As a scenario says it."""
        given = game.evaluation.feature_network
        found = None if given is None else str(Path(located(given)).resolve())
        networks = Evaluation(feature_network=found, feature_side=game.evaluation.feature_side)
        return cls(game.generator, game.judge, game.precision, networks, photos)

    def settings(self) -> dict[str, Any]:
        """What parts depend on. Raises UserError when there is no such network."""
        network = feature_network(self.networks)
        sets = {"by": "judge"} if network is None else {"by": network.digest, "side": network.side}
        named = {"generator": self.generator, "judge": self.judge, "precision": self.precision}
        return named | {"sets": sets | {"sample": SAMPLE}}


def check_labels(generator: str, columns: Sequence[str]) -> None:
    """Raises UserError when a clean source lacks a label that the generator's forgeries need."""
    family = load_family(generator)
    if missing := [name for name in family.attributes if name not in columns]:
        raise UserError(
            f"the clean source has no column {missing[0]!r}: forgeries by {family.name} need the labels"
            f" {', '.join(family.attributes)}; add them, or leave --forgeries out"
        )


class Measure:
    """Rows of a part: `measured` for every photo, the others for those that could be compared."""

    def __init__(self, detectors: Mapping[str, Path | None], size: int, forging: Forging | None) -> None:
        self._detectors = {name: load_detector(name, weights) for name, weights in detectors.items()}
        self._size = size
        self._family: Family | None = None
        if forging is not None:
            self._forging = forging
            self._family = load_family(forging.generator).freeze()
            self._features = feature_network(forging.networks)

    def __call__(self, part: pa.Table) -> pa.Table:
        """Columns of `ROWS`; where photos are forged, with what is kept of the sets, to be written beside the part.

        Raises UserError when forgeries are asked for and labels are missing.
        """
        bad: dict[int, str] = {}
        names = [name or f"(row {row})" for row, name in enumerate(part["id"].to_pylist())]
        tables = []
        used: set[int] = set()
        seen: list[tuple[FaceSet, SetPairs]] = []
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
            tables += self._rows(part.take([rows[k] for k in both]), photos.take(both), after, seen)
        flags = np.array([row in used for row in range(part.num_rows)])
        whole = pa.concat_tables([make_rows(Stage(1, 1, "collection"), names, {"measured": flags}), *tables])
        return whole if self._family is None else whole.replace_schema_metadata({BESIDE: self._kept(seen)})

    def _kept(self, seen: list[tuple[FaceSet, SetPairs]]) -> bytes:
        """What is kept of the sets of a part."""
        names = [name for photos, _ in seen for name in photos.ids]
        starts = np.cumsum([0, *(len(photos) for photos, _ in seen)])
        if not any(len(pairs.photo_P) for _, pairs in seen):
            return NOTHING
        vectors = [np.concatenate([pairs[side] for _, pairs in seen]) for side in (0, 1)]
        photo_P = np.concatenate([pairs.photo_P + start for (_, pairs), start in zip(seen, starts, strict=False)])
        return SetPart.of(names, SetPairs(vectors[0], vectors[1], photo_P), self._forging.photos).content()

    def _rows(
        self, rows: pa.Table, clean: FaceSet, published: FaceSet, seen: list[tuple[FaceSet, SetPairs]]
    ) -> list[pa.Table]:
        judged = PublishedEvaluator(self._detectors, clean)
        found = [
            judged.detection_rows(Stage(1, 1, "detection"), published),
            judged.visibility_rows(Stage(1, 1, "visibility"), published),
        ]
        if self._family is None:
            return found
        family = self._family
        labels_BA = np.stack([np.asarray(rows[name].to_numpy(), np.uint8) for name in family.attributes], 1)
        labelled = FaceSet(clean.pixels_BCHW, labels_BA, family.attributes, clean.ids)
        judge, precision = load_judge(self._forging.judge, family.attributes), self._forging.precision
        forged = Evaluator(judge, {}, labelled, family, features=self._features, precision=precision)
        after = labelled.with_pixels(published.pixels_BCHW)
        judged, pairs = forged.compared(Stage(1, 0, "transfer"), family, after, sets=True)
        assert pairs is not None, "asked for"
        seen.append((labelled, pairs))
        return [*found, judged]


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
            {"value": value / weight, "low": low, "high": high, "n": n}
            if weight > 0
            else dict.fromkeys(("value", "low", "high")) | {"n": n, "reason": reason_for(key[-1])}
        )
        found.append(dict(zip(KEYS, key, strict=True)) | known)
    return found


def set_rows(target: Collection, forging: Forging) -> list[dict[str, Any]]:
    """Distances of sets from what was kept of all parts, in the form of `summarise`.

    One part is in memory at a time. Raises UserError when what was kept of a part is missing or damaged.
    """

    def read() -> Iterator[SetPart | None]:
        for number in sorted(target.finished()):
            place = target.beside(number)
            try:
                yield SetPart.read(place.read())
            except (FileNotFoundError, ValueError) as error:
                what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
                part = target.part(number).name
                raise UserError(f"{place.name}: {what}; remove {part} too, and the same command makes both") from error

    network = feature_network(forging.networks)
    model = load_family(forging.generator).name
    rows = []
    for found in distances("judge" if network is None else network.name, together(read())):
        row = {"phase": "transfer", "model": model} | asdict(found)
        rows.append({name: value for name, value in row.items() if name != "reason" or value is not None})
    return rows
