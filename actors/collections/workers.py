"""What is done to the photos of a part, one class per job. An actor holds one for its whole life: models load once.

A worker is made once and called with the rows of a part (`readings.PHOTOS`, then labels); it returns a row for each,
in order, with the columns of its `columns` and the labels. A part may be computed twice: nothing is kept between calls.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from tsdf_ray.armour import Armour
from tsdf_ray.attackers import Prepared, make_attacker
from tsdf_ray.attackers.base import AttackerConfig, Studied
from tsdf_ray.detectors import Detector, load_detector
from tsdf_ray.faces import BadPhoto, FaceSet, decode, to_square
from tsdf_ray.photos import LOCATORS, SEEN, Faces, NoFace, Steps, framed, moved, noted, png, seen, whole_steps
from tsdf_ray.regions import Pixels

TOGETHER = 64
"""Photos in memory at once, decoded."""
TOGETHER_PIXELS = 16 << 20
"""And their area: a photo may have 64 megapixels."""


@dataclass(frozen=True)
class Photo:
    """One photo of a part, decoded."""

    row: int
    name: str
    data: bytes
    image_HWC: Pixels


def decoded(part: pa.Table, bad: dict[int, str]) -> Iterator[list[Photo]]:
    """The photos of a part, some at a time; those that cannot be used go into `bad` as row -> reason."""
    batch: list[Photo] = []
    area = 0
    names: set[str] = set()
    for row in range(part.num_rows):
        name, data, problem = (part[column][row].as_py() for column in ("id", "image", "problem"))
        try:
            image_HWC = _decoded(name, data, problem, names)
        except BadPhoto as error:
            bad[row] = error.item.partition(": ")[2]
            continue
        names.add(name)
        batch.append(Photo(row, name, data, image_HWC))
        area += image_HWC.shape[0] * image_HWC.shape[1]
        if len(batch) == TOGETHER or area >= TOGETHER_PIXELS:
            yield batch
            batch, area = [], 0
    if batch:
        yield batch


def _decoded(name: str | None, data: bytes | None, problem: str | None, names: set[str]) -> Pixels:
    # The name stands before the reason and is cut off again: it may hold anything.
    if not name:
        raise BadPhoto("", "no id")
    if name in names:
        raise BadPhoto("", "its id is there twice")
    if data is None:
        raise BadPhoto("", problem or "no image")
    return decode(data, "")


def filled(columns: pa.Schema, part: pa.Table, rows: dict[int, dict[str, Any]]) -> pa.Table:
    """A row for every photo of the part; what is not known of it is null. Labels are carried along."""
    whole = [{"id": part["id"][row].as_py()} | rows.get(row, {}) for row in range(part.num_rows)]
    table = pa.Table.from_pylist(whole, schema=columns)
    for name in part.column_names[3:]:
        table = table.append_column(part.schema.field(name), part[name])
    return table


class Protect:
    """Photos of any size, protected around their faces."""

    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("id", pa.string()),
            ("image", pa.large_binary()),
            *SEEN,
        ]
    )

    def __init__(self, armour: Armour, faces: Faces, no_face: NoFace) -> None:
        self._armour, self._faces, self._no_face = armour, faces, no_face
        self._detectors: list[Detector] = [load_detector(name) for name in LOCATORS] if faces == "find" else []
        self._universal: Steps | None = None

    def __call__(self, part: pa.Table) -> pa.Table:
        """A row per photo; without an image where there is none to publish, and a note that says why."""
        bad: dict[int, str] = {}
        rows: dict[int, dict[str, Any]] = {}
        for batch in decoded(part, bad):
            rows |= self._protected(batch)
        rows |= {row: {"note": f"bad photo: {reason}"} for row, reason in bad.items()}
        return filled(self.columns, part, rows)

    def _protected(self, batch: Sequence[Photo]) -> dict[int, dict[str, Any]]:
        found = framed([photo.image_HWC for photo in batch], self._detectors, self._faces, self._no_face)
        small: list[Pixels] = []
        ids: list[str] = []
        starts: list[int] = []
        for photo, frames in zip(batch, found, strict=True):
            starts.append(len(small))
            small += [to_square(region.cut(photo.image_HWC), self._armour.size) for region in frames.regions]
            ids += [f"{photo.name}#{k}" for k in range(len(frames.regions))]
        steps = self._steps(small, ids)
        rows = {}
        for photo, frames, first in zip(batch, found, starts, strict=True):
            height, width = photo.image_HWC.shape[:2]
            row: dict[str, Any] = {"width": width, "height": height, "faces": frames.faces, "note": frames.note}
            if steps is not None and frames.regions:
                after = moved(photo.image_HWC, frames.regions, steps, first)
                measured = seen(photo.image_HWC, after, frames.regions)
                row |= {"image": png(after, photo.data), **measured, "note": noted(measured, frames)}
            rows[photo.row] = row
        return rows

    def _steps(self, small: list[Pixels], ids: list[str]) -> Steps | None:
        if not small:
            return None
        if self._universal is not None:
            return self._universal
        steps = whole_steps(self._armour, self._armour.face_set(np.stack(small), tuple(ids)))
        if len(steps) == 1 and len(small) > 1:
            self._universal = steps  # the same for every frame: asked for once
        return steps


class Prepare:
    """What an attacker makes of photos before it trains on them: purified, detected, dropped, cropped."""

    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("id", pa.string()),
            ("image", pa.large_binary()),
            ("usable", pa.bool_()),
            ("found", pa.bool_()),
            ("x1", pa.float32()),
            ("y1", pa.float32()),
            ("x2", pa.float32()),
            ("y2", pa.float32()),
            ("score", pa.float32()),
            ("note", pa.string()),
        ]
    )

    def __init__(
        self, config: AttackerConfig, run_seed: int, detectors: dict[str, Any], size: int, crop: int | None
    ) -> None:
        loaded = {name: load_detector(name, weights) for name, weights in detectors.items()}
        self._attacker = make_attacker(config, run_seed, loaded, ())
        self._size, self._crop = size, crop

    def __call__(self, part: pa.Table) -> pa.Table:
        """A row per photo: its crop where it is usable, the box in pixels of the square photo, flags and a note."""
        bad: dict[int, str] = {}
        rows: dict[int, dict[str, Any]] = {}
        for batch in decoded(part, bad):
            taken, photos = squares(batch, self._size, self._crop, bad)
            if taken:
                prepared = self._attacker.prepare(1, photos, Studied({}))
                rows |= dict(zip([photo.row for photo in taken], _prepared_rows(prepared), strict=True))
        rows |= {r: {"usable": False, "found": False, "note": f"bad photo: {reason}"} for r, reason in bad.items()}
        return filled(self.columns, part, rows)


def squares(batch: Sequence[Photo], size: int, crop: int | None, bad: dict[int, str]) -> tuple[list[Photo], FaceSet]:
    """Photos as squares of `size`, as a scenario's `faces` reads them; those under `crop` go into `bad`."""
    taken: list[Photo] = []
    pixels: list[Pixels] = []
    for photo in batch:
        try:
            pixels.append(to_square(photo.image_HWC, size, crop, ""))
        except BadPhoto as error:
            bad[photo.row] = error.item.partition(": ")[2]
        else:
            taken.append(photo)
    pixels_BCHW = np.stack(pixels) if pixels else np.zeros((0, 3, size, size), np.uint8)
    names = tuple(photo.name for photo in taken)
    return taken, FaceSet(pixels_BCHW, np.zeros((len(taken), 0), np.uint8), (), names)


def _prepared_rows(prepared: Prepared) -> Iterator[dict[str, Any]]:
    place = {int(n): u for u, n in enumerate(prepared.used_U)}
    for n, found in enumerate(prepared.found_N.tolist()):
        row: dict[str, Any] = {"usable": n in place, "found": found, "note": "" if found else "no face found"}
        if prepared.has_box_N[n]:
            row |= dict(zip(("x1", "y1", "x2", "y2"), prepared.boxes_N4[n].tolist(), strict=True))
        if found:
            row["score"] = float(prepared.scores_N[n])
        if n in place:
            row["image"] = _plain_png(prepared.photos.pixels_BCHW[place[n]].transpose(1, 2, 0))
        yield row


def _plain_png(pixels_HWC: Pixels) -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels_HWC)).save(written, format="PNG")
    return written.getvalue()
