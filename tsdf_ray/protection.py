"""Protect a folder of photos: find the faces, add what a defence learned, write, and measure what can be seen of it.

Only the frames around faces change; everything else keeps its pixels, and no value moves further than the budget.
Nothing is written before every photo has been read, no file is overwritten, and every file appears whole.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv
import torch
from PIL import Image

from tsdf_ray.armour import Armour, learned_armour, packaged_armour
from tsdf_ray.detectors import load_detector
from tsdf_ray.errors import UserError
from tsdf_ray.faces import BadPhoto, FaceSet, decode, photo_files, to_images, to_square
from tsdf_ray.faces.decode import read_bytes
from tsdf_ray.metrics.visibility import psnr, ssim
from tsdf_ray.regions import Pixels, Region, centre_square, face_regions, stretch
from tsdf_ray.store.atomic import whole_file, write_table

LOCATORS = ("retinaface", "mtcnn")
"""Detectors in the order they are tried on a photo."""
BATCH = 32
"""Faces perturbed at once."""
SSIM_SIDE = 1024
"""SSIM is taken on the middle of larger frames: its cost grows with the area, its value hardly."""
TABLE = "visibility.csv"

Tell = Callable[[str, int, int], None]
"""Called with (what is being done, how many are done, of how many); may raise Stopped."""


@dataclass(frozen=True)
class Protected:
    """What `protect` did. `table` has one row per photo (`SCHEMA`)."""

    table: pa.Table
    table_path: Path
    written: list[Path]
    without_face: list[str]
    skipped: list[str]
    """Bad photos, each as 'name: reason'."""


@dataclass(frozen=True)
class _Photo:
    path: Path
    target: Path
    name: str
    regions: list[Region]
    faces: int
    first: int
    """Position of its first frame in the set of all frames."""


def protect(
    source: str | Path,
    out: str | Path,
    *,
    defender: str | None = None,
    run: str | Path | None = None,
    attacker: str | None = None,
    epsilon: float | None = None,
    no_face: Literal["skip", "whole"] = "skip",
    on_bad: Literal["stop", "skip"] = "stop",
    table: str | Path | None = None,
    tell: Tell | None = None,
) -> Protected:
    """Protect the photos in the folder `source` (and its subfolders): PNG of same stem and size below `out`.

    Without `run`, the defence `defender` (default `found`) learns first, against the packaged generator and on the
    packaged sample; with it, what that run's defender had learned in its last round is used (`defender` and `attacker`
    choose among several). `epsilon` is on the [-1, 1] scale (default 0.05, or the run's). A photo without a face is
    left out and listed (`skip`), or its middle square is treated as one (`whole`). `table` (.csv or .parquet) defaults
    to OUT/visibility.csv. Metadata other than an RGB colour profile is left behind.

    Raises UserError, with nothing written: no photos, bad photos under `on_bad: stop` (all of them listed), a target
    that exists or cannot be written, an unknown defence, a run without finished rounds.
    """
    folder, target = Path(source), Path(out)
    table_path = Path(table) if table is not None else target / TABLE
    tell = tell or (lambda what, done, total: None)
    files = photo_files(folder)
    if not files:
        raise UserError(f"{folder}: holds no photo (JPEG, PNG, WebP, BMP); give the folder that holds the photos")
    targets = _targets(files, folder, target)
    _check_free([*targets, table_path], target, folder)
    if table_path.suffix not in {".csv", ".parquet"}:
        raise UserError(f"{table_path}: the table is written as .csv or .parquet; choose one of these endings")
    if run is not None:
        armour = learned_armour(Path(run), defender, attacker, epsilon)
    else:
        if attacker is not None:
            raise UserError("--attacker chooses among the attackers of a run; give --from RUN too")
        armour = packaged_armour(defender or "found", 0.05 if epsilon is None else epsilon)
    photos, frames, bad = _read_all(files, targets, folder, armour, no_face, on_bad, tell)
    steps = _steps(armour, frames, tell) if frames is not None else None
    rows, written = [], []
    for done, photo in enumerate(photos):
        tell("protect", done, len(photos))
        rows.append(_protect_one(photo, steps))
        if photo.regions:
            written.append(photo.target)
    rows += [_row(name, note=f"bad photo: {reason}") for name, reason in bad]
    result = pa.Table.from_pylist(rows, schema=SCHEMA)
    _write_rows(table_path, result)
    without = [photo.name for photo in photos if not photo.faces]
    return Protected(result, table_path, written, without, [f"{name}: {reason}" for name, reason in bad])


def _targets(files: list[Path], folder: Path, out: Path) -> list[Path]:
    """Where each photo goes. Raises UserError when two would become one file."""
    targets: dict[Path, Path] = {}
    for path in files:
        place = (out / path.relative_to(folder)).with_suffix(".png")
        if place in targets:
            raise UserError(f"{targets[place]} and {path}: both would be written as {place}; rename one")
        targets[place] = path
    return list(targets)


def _check_free(places: list[Path], out: Path, folder: Path) -> None:
    """Raises UserError when something exists already, or nothing could be written."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{out}: lies in the folder of the photos; choose a folder outside {folder}")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a folder")
    for place in places:
        if os.path.lexists(place):
            raise UserError(f"{place}: exists; protect overwrites nothing, choose another folder")
    for folder_above in {out, *(place.parent for place in places)}:
        parent = folder_above
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise UserError(f"{folder_above}: cannot be written (no permission on {parent}); choose another folder")


def _read_all(
    files: list[Path], targets: list[Path], folder: Path, armour: Armour, no_face: str, on_bad: str, tell: Tell
) -> tuple[list[_Photo], FaceSet | None, list[tuple[str, str]]]:
    """Every photo read once: its frames' places, and all frames as one set of small photos for the defence."""
    detectors = [load_detector(name) for name in LOCATORS]
    photos: list[_Photo] = []
    bad: list[tuple[str, str]] = []
    small: list[Pixels] = []
    ids: list[str] = []
    for done, (path, target) in enumerate(zip(files, targets, strict=True)):
        tell("read", done, len(files))
        name = path.relative_to(folder).as_posix()
        try:
            image_HWC = decode(read_bytes(path), str(path))
        except BadPhoto as error:
            bad.append((name, error.item.removeprefix(f"{path}: ")))
            continue
        found = face_regions(image_HWC, detectors)
        regions = found or ([centre_square(image_HWC)] if no_face == "whole" else [])
        photos.append(_Photo(path, target, name, regions, len(found), len(small)))
        small += [to_square(region.cut(image_HWC), armour.size) for region in regions]
        ids += [f"{name}#{k}" for k in range(len(regions))]
    if bad and on_bad == "stop":
        listed = "\n".join(f"  {name}: {reason}" for name, reason in bad)
        raise UserError(f"{len(bad)} bad photo(s), nothing was written; remove them, or use --on-bad skip:\n{listed}")
    frames = armour.face_set(np.stack(small), tuple(ids)) if small else None
    return photos, frames, bad


def _steps(armour: Armour, frames: FaceSet, tell: Tell) -> npt.NDArray[np.int16]:
    """The perturbation of every frame in whole steps of the 8-bit grid: [N or 1, 3, S, S]."""
    parts = []
    for first in range(0, len(frames), BATCH):
        tell("perturb", first, len(frames))
        part = armour.perturb(frames.take(range(first, min(first + BATCH, len(frames)))))
        parts.append((part * 127.5).round().to(torch.int16).numpy())
        if parts[0].shape[0] == 1:
            # Universal, the same for every frame (or there is one frame).
            break
    return np.concatenate(parts)


def _protect_one(photo: _Photo, steps: npt.NDArray[np.int16] | None) -> dict[str, Any]:
    """Write one photo and measure it; a photo without a frame is only listed."""
    data = read_bytes(photo.path)
    before = decode(data, str(photo.path))
    height, width = before.shape[:2]
    if not photo.regions or steps is None:
        return _row(photo.name, width=width, height=height, faces=0, note="no face found: left out")
    after = moved(before, photo.regions, steps, photo.first)
    with whole_file(photo.target) as temporary:
        Image.fromarray(after).save(temporary, format="PNG", **_profile(data))
    seen = [_visibility(region.cut(before), region.cut(after)) for region in photo.regions]
    largest = max(int(np.abs(r.cut(after).astype(np.int16) - r.cut(before)).max()) for r in photo.regions)
    known = [value for value, _ in seen if math.isfinite(value)]
    return _row(
        photo.name,
        output=str(photo.target),
        width=width,
        height=height,
        faces=photo.faces,
        psnr=sum(known) / len(known) if known else None,
        ssim=sum(value for _, value in seen) / len(seen),
        max_delta=largest / 127.5,
        max_steps=largest,
        note=("" if photo.faces else "no face found: middle square") if largest else "unchanged: PSNR is infinite",
    )


def moved(before: Pixels, regions: list[Region], steps: npt.NDArray[np.int16], first: int) -> Pixels:
    """A copy of a photo with `steps` (of frame `first` on, or one for all) added in `regions`, largest first.

    Where frames overlap the larger keeps its own: no pixel is moved twice.
    """
    after = before.copy()
    free = np.ones((*before.shape[:2], 1), dtype=bool)
    for k, region in enumerate(regions):
        own = steps[0] if len(steps) == 1 else steps[first + k]
        part = region.cut(after)
        part[:] = (part + stretch(own, region.side) * region.cut(free)).clip(0, 255).astype(np.uint8)
        region.cut(free)[:] = False
    return after


def _visibility(before: Pixels, after: Pixels) -> tuple[float, float]:
    """PSNR of a frame, and SSIM of its middle."""
    a, b = (to_images(torch.from_numpy(np.array(part.transpose(2, 0, 1))))[None] for part in (before, after))
    cut = max(0, (a.shape[-1] - SSIM_SIDE) // 2)
    middle = slice(cut, cut + SSIM_SIDE)
    return float(psnr(a, b)[0]), float(ssim(a[..., middle, middle], b[..., middle, middle])[0])


SCHEMA = pa.schema(
    [
        ("photo", pa.string()),
        ("output", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("faces", pa.int64()),
        ("psnr", pa.float64()),
        ("ssim", pa.float64()),
        ("max_delta", pa.float64()),
        ("max_steps", pa.int64()),
        ("note", pa.string()),
    ]
)


def _row(name: str, **known: Any) -> dict[str, Any]:
    return dict.fromkeys(SCHEMA.names) | {"photo": name} | known


def _write_rows(path: Path, rows: pa.Table) -> None:
    if path.suffix == ".parquet":
        write_table(path, rows)
    else:
        with whole_file(path) as temporary:
            pa_csv.write_csv(rows, temporary)


def _profile(data: bytes) -> dict[str, bytes]:
    """The colour profile of an RGB photo: without it the same numbers would show other colours."""
    with Image.open(io.BytesIO(data)) as photo:
        profile = photo.info.get("icc_profile") if photo.mode == "RGB" else None
    return {"icc_profile": profile} if profile else {}
