"""Protect a folder of photos: find the faces, add what a defence learned, write, and measure what can be seen of it.

Only the frames around faces change; everything else keeps its pixels, and no value moves further than the budget.
Nothing is written before every photo has been read, no file is overwritten, and every file appears whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from tsdf_ray.armour import PACKAGED, Armour, learned_armour, packaged_armour, packaged_defender
from tsdf_ray.detectors import load_detector
from tsdf_ray.digest import Arrays
from tsdf_ray.errors import UserError
from tsdf_ray.faces import BadPhoto, FaceSet, decode, photo_files, to_square
from tsdf_ray.faces.decode import read_bytes
from tsdf_ray.files import is_uri, without_secrets
from tsdf_ray.photos import LOCATORS, SEEN, Faces, Framed, NoFace, Steps, framed, moved, noted, png, seen, whole_steps
from tsdf_ray.regions import Pixels
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.atomic import whole_file, write_table

TABLE = "visibility.csv"
COLLECTION = "_collection.json"
"""In a folder that a job over a collection writes."""
DEFENCE, BUDGET = "found", 0.05
"""What protects unless something else is asked for."""

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
    frames: Framed
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
    faces: Faces = "find",
    no_face: NoFace = "skip",
    on_bad: Literal["stop", "skip"] = "stop",
    table: str | Path | None = None,
    tell: Tell | None = None,
) -> Protected:
    """Protect the photos in the folder `source` (and its subfolders): PNG of same stem and size below `out`.

    Without `run`, the defence `defender` (default `found`) learns first, against the packaged generator and on the
    packaged sample; with it, what that run's defender had learned in its last round is used (`defender` and `attacker`
    choose among several). `epsilon` is on the [-1, 1] scale (default 0.05, or the run's). A photo without a face is
    left out and listed (`skip`), or its middle square is treated as one (`whole`); `faces: whole` takes that of every
    photo, and looks for no face. `table` (.csv or .parquet) defaults
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
    armour = armour_of(run, defender, attacker, epsilon)
    photos, frames, bad = _read_all(files, targets, folder, armour, faces, no_face, on_bad, tell)
    told = partial(tell, "perturb")
    steps = whole_steps(armour, frames, told) if frames is not None else None
    rows, written = [], []
    for done, photo in enumerate(photos):
        tell("protect", done, len(photos))
        rows.append(_protect_one(photo, steps))
        if photo.frames.regions:
            written.append(photo.target)
    rows += [_row(name, note=f"bad photo: {reason}") for name, reason in bad]
    result = pa.Table.from_pylist(rows, schema=SCHEMA)
    _write_rows(table_path, result)
    without = [photo.name for photo in photos if not photo.frames.faces]
    return Protected(result, table_path, written, without, [f"{name}: {reason}" for name, reason in bad])


def armour_of(
    run: str | Path | None,
    defender: str | None,
    attacker: str | None,
    epsilon: float | None,
    learned: Arrays | None = None,
) -> Armour:
    """The defence that is asked for, as in `protect`: a run's, one with what it `learned`, or one that learns now.

    Raises UserError.
    """
    if run is not None:
        if is_uri(run):
            raise UserError(f"--from {without_secrets(str(run))}: a run is read from a folder; copy it to one")
        return learned_armour(Path(run), defender, attacker, epsilon)
    check_packaged(defender, attacker, epsilon)
    kind, budget = defender or DEFENCE, BUDGET if epsilon is None else epsilon
    return packaged_armour(kind, budget) if learned is None else packaged_armour(kind, budget, learned)


def check_packaged(defender: str | None, attacker: str | None, epsilon: float | None) -> None:
    """Raises UserError for what no packaged defence can be asked: cheap, nothing is learned."""
    if attacker is not None:
        raise UserError("--attacker chooses among the attackers of a run; give --from RUN too")
    packaged_defender(Scenario.load(PACKAGED), defender or DEFENCE, BUDGET if epsilon is None else epsilon)


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
    if (out / COLLECTION).exists():
        raise UserError(f"{out}: holds a collection's Parquet, which PNG files beside it spoil; choose another folder")
    for place in places:
        if os.path.lexists(place):
            raise UserError(f"{place}: exists; protect overwrites nothing, choose another folder")
    for folder_above in {out, *(place.parent for place in places)}:
        parent = folder_above
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            why = f"no permission on {parent}" if parent.is_dir() else f"{parent} is no folder"
            raise UserError(f"{folder_above}: cannot be written ({why}); choose another folder")


def _read_all(
    files: list[Path],
    targets: list[Path],
    folder: Path,
    armour: Armour,
    faces: Faces,
    no_face: NoFace,
    on_bad: str,
    tell: Tell,
) -> tuple[list[_Photo], FaceSet | None, list[tuple[str, str]]]:
    """Every photo read once: its frames' places, and all frames as one set of small photos for the defence."""
    detectors = [load_detector(name) for name in LOCATORS] if faces == "find" else []
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
        frames = framed([image_HWC], detectors, faces, no_face)[0]
        photos.append(_Photo(path, target, name, frames, len(small)))
        small += [to_square(region.cut(image_HWC), armour.size) for region in frames.regions]
        ids += [f"{name}#{k}" for k in range(len(frames.regions))]
    if bad and on_bad == "stop":
        listed = "\n".join(f"  {name}: {reason}" for name, reason in bad)
        raise UserError(f"{len(bad)} bad photo(s), nothing was written; remove them, or use --on-bad skip:\n{listed}")
    return photos, armour.face_set(np.stack(small), tuple(ids)) if small else None, bad


def _protect_one(photo: _Photo, steps: Steps | None) -> dict[str, Any]:
    """Write one photo and measure it; a photo without a frame is only listed."""
    data = read_bytes(photo.path)
    before = decode(data, str(photo.path))
    height, width = before.shape[:2]
    about = {"width": width, "height": height, "faces": photo.frames.faces}
    if not photo.frames.regions or steps is None:
        return _row(photo.name, **about, note=photo.frames.note)
    after = moved(before, photo.frames.regions, steps, photo.first)
    with whole_file(photo.target) as temporary:
        temporary.write_bytes(png(after, data))
    measured = seen(before, after, photo.frames.regions)
    return _row(photo.name, output=str(photo.target), **about, **measured, note=noted(measured, photo.frames))


SCHEMA = pa.schema(
    [
        ("photo", pa.string()),
        ("output", pa.string()),
        *SEEN,
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
