"""`protect`, `prepare` and `measure` over photo collections of any size."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.numpy import load, save

from actors.cluster import checked_address
from actors.collections.collection import Collection
from actors.collections.data import PART, Job, Progress, Tell, run
from actors.collections.measure import Forging, Measure, Pairs, check_labels, set_rows, summarise
from actors.collections.readings import PHOTOS
from actors.collections.sources import Source, open_source
from actors.collections.workers import Prepare, Protect
from tsdf_ray.armour import Armour
from tsdf_ray.detectors import load_detector
from tsdf_ray.digest import array_digest
from tsdf_ray.errors import UserError
from tsdf_ray.photos import LOCATORS, Faces, NoFace
from tsdf_ray.protection import armour_of, check_packaged
from tsdf_ray.scenario import Scenario

RESERVED = frozenset({*PHOTOS.names, *Protect.columns.names, *Prepare.columns.names, "published"})
"""Columns that jobs write: those of a source are not carried along."""


@dataclass(frozen=True)
class Measured:
    """What `measure` found. `summary` has phase, model, metric, value, low, high and n (photos) per row, and `reason`
    where there is no value."""

    out: str
    progress: Progress
    summary: list[dict[str, Any]]


@dataclass(frozen=True)
class Written:
    """What is in `out` now."""

    out: str
    progress: Progress
    counts: dict[str, int]
    """Photos by what became of them."""
    means: dict[str, float]
    """Of psnr and ssim over the protected photos."""


def protect(
    source: str,
    out: str,
    *,
    defender: str | None = None,
    run_dir: str | Path | None = None,
    attacker: str | None = None,
    epsilon: float | None = None,
    faces: Faces = "find",
    no_face: NoFace = "skip",
    part: int = PART,
    address: str | None = None,
    workers: int | None = None,
    tell: Tell | None = None,
) -> Written:
    """As `tsdf_ray.protect`, from a folder or Parquet, by path or URI, into a folder of Parquet parts.

    A row per photo of the source, in its order (`Protect.columns`, then the source's labels). The same call again goes
    on: parts that are there are not computed again. Raises UserError.
    """
    address = checked_address(address)
    photos, target = _opened(source, out, part)
    armour = None if run_dir is None else armour_of(run_dir, defender, attacker, epsilon)
    if run_dir is None:
        check_packaged(defender, attacker, epsilon)  # a folder claimed with a mistake could never be gone on with
    asked = {"defender": defender or "found", "epsilon": epsilon, "attacker": attacker}
    if armour is not None:
        asked |= {"run": str(Path(str(run_dir)).resolve()), "learned": array_digest(armour.state.tensors)}
    target.claim(_settings("protect", photos, part) | {"defence": asked, "faces": faces, "no_face": no_face})
    armour = armour or _kept(target, defender or "found", epsilon)
    job = Job("protect", Protect, (armour, faces, no_face))
    progress = run(job, photos.readings, target, address=address, workers=workers, tell=tell)
    return _written(target, progress, {"protected": "ssim", "without_face": "no face", "bad": "bad photo"})


def prepare(
    source: str,
    out: str,
    *,
    scenario: str | Path | Scenario = "quickstart",
    attacker: str | None = None,
    part: int = PART,
    address: str | None = None,
    workers: int | None = None,
    tell: Tell | None = None,
) -> Written:
    """What an attacker of a scenario makes of a collection before it trains on it.

    A row per photo (`Prepare.columns`, then the labels): the crop where it is usable, box, score and flags. The same
    call again goes on. Raises UserError, also for what needs all photos at once: `known_boxes`, and a purification that
    must be fitted (`denoise`, `subtract`).
    """
    game = scenario if isinstance(scenario, Scenario) else Scenario.load(scenario)
    name = _attacker(game, attacker)
    config = game.attackers[name]
    learned = [
        step.kind for step in config.purify.prepare + config.purify.train if step.kind in {"denoise", "subtract"}
    ]
    if learned or config.prepare.known_boxes:
        what = f"purify.{learned[0]}" if learned else "prepare.known_boxes"
        raise UserError(f"attackers.{name}: {what} needs all photos of a round at once; a collection is read in parts")
    address = checked_address(address)
    photos, target = _opened(source, out, part)
    weights = {detector: game.weights_of(detector) for detector in config.prepare.detectors}
    asked = {"attacker": config.model_dump(mode="json"), "size": game.faces.size, "crop": game.faces.crop}
    target.claim(_settings("prepare", photos, part) | asked)
    job = Job("prepare", Prepare, (config, game.seeds[0], weights, game.faces.size, game.faces.crop))
    progress = run(job, photos.readings, target, address=address, workers=workers, tell=tell)
    return _written(target, progress, {"usable": "usable", "found": "found", "bad": "bad photo"})


def measure(
    clean: str,
    protected: str,
    out: str,
    *,
    detectors: Sequence[str] = LOCATORS,
    size: int = 128,
    forgeries: str | Path | Scenario | None = None,
    address: str | None = None,
    workers: int | None = None,
    tell: Tell | None = None,
) -> Measured:
    """Detectors and the eye on the photos that `protect` wrote to `protected`, against the source it was given.

    Both are compared as squares of `size` pixels. `forgeries` names a scenario, with whose generator and judge the
    photos are forged too, and the sets of forgeries compared; labels are then needed. Rows as in a run's
    tables/images.parquet, and `_summary.json`. The same call again goes on. Raises UserError: not what `protect` wrote,
    not finished, another source.
    """
    address = checked_address(address)
    published, target = Collection(protected), Collection(out)
    before = published.settings()
    if before.get("job") != "protect":
        raise UserError(f"{published.place.name}: was written by {before.get('job')!r}; give what protect wrote")
    photos = open_source(clean, before["part"], RESERVED)
    lacking = sorted(set(photos.counts) - published.finished())
    if sum(photos.counts.values()) != before["photos"] or lacking:
        state = f"lacks part {lacking[0]}; finish it with the same protect" if lacking else "was made of other photos"
        raise UserError(f"{published.place.name}: {state} (clean: {photos.name}, made of: {before['source']})")
    forging = None
    if forgeries is not None:
        game = forgeries if isinstance(forgeries, Scenario) else Scenario.load(forgeries)
        forging = Forging.of(game, sum(photos.counts.values()))
        check_labels(forging.generator, photos.labels.names)
    generated = {} if forging is None else forging.settings()
    asked = {"protected": before, "detectors": list(detectors), "size": size, "forgeries": generated}
    for name in detectors:
        load_detector(name)
    target.claim(_settings("measure", photos, before["part"]) | asked)
    job = Job("measure", Measure, (dict.fromkeys(detectors), size, forging))
    pairs = [Pairs(reading, published) for reading in photos.readings]
    progress = run(job, pairs, target, address=address, workers=workers, tell=tell)
    summary = summarise(target.read(["phase", "model", "metric", "photo", "value", "weight"]))
    if forging is not None:
        summary += set_rows(target, forging)
    target.place.child("_summary.json").write((json.dumps(summary, indent=1) + "\n").encode())
    return Measured(target.place.name, progress, summary)


def _opened(source: str, out: str, part: int) -> tuple[Source, Collection]:
    if part < 1:
        raise UserError(f"--part {part}: photos of a part, at least 1")
    photos, target = open_source(source, part, RESERVED), Collection(out)
    if f"{target.place.name}/".startswith(f"{photos.name}/"):
        raise UserError(f"{target.place.name}: lies in the source; choose a folder outside {photos.name}")
    return photos, target


def _settings(job: str, photos: Source, part: int) -> dict[str, Any]:
    """What parts depend on, whatever the job."""
    return {
        "job": job,
        "version": version("tsdf-ray"),
        "source": photos.name,
        "content": photos.digest,
        "part": part,
        "photos": sum(photos.counts.values()),
    }


def _kept(target: Collection, kind: str, epsilon: float | None) -> Armour:
    """What the defence learned when the collection was begun; it learns at the first call, and only then."""
    place = target.place.child("_defence.safetensors")
    try:
        learned = load(place.read())
    except FileNotFoundError:
        with _threads(1):  # two on a busy machine may be ten times slower than one
            armour = armour_of(None, kind, None, epsilon)
        place.write(save({name: np.ascontiguousarray(value) for name, value in armour.state.tensors.items()}))
        return armour
    return armour_of(None, kind, None, epsilon, learned)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _attacker(game: Scenario, name: str | None) -> str:
    if name is None and len(game.attackers) == 1:
        return next(iter(game.attackers))
    if name not in game.attackers:
        wanted = "choose one with --attacker" if name is None else f"has no attacker {name!r}"
        raise UserError(f"{game.name}: {wanted}; it has: {', '.join(game.attackers)}")
    return name


def _written(target: Collection, progress: Progress, kinds: dict[str, str]) -> Written:
    """Read back from the parts: photos whose column is set (or true), and those whose note begins so."""
    columns: list[str] = [name for name in ("usable", "found", "psnr", "ssim", "note") if name in target.columns()]
    counts, sums = dict.fromkeys(kinds, 0), {"psnr": [0.0, 0], "ssim": [0.0, 0]}
    for rows in target.read(columns):
        for kind, mark in kinds.items():
            if mark not in columns:
                counts[kind] += pc.sum(pc.starts_with(rows["note"], mark)).as_py() or 0
            elif rows[mark].type == pa.bool_():
                counts[kind] += pc.sum(rows[mark]).as_py() or 0
            else:
                counts[kind] += rows.num_rows - rows[mark].null_count
        for name, total in sums.items():
            if name in columns:
                total[0] += pc.sum(rows[name]).as_py() or 0.0
                total[1] += rows.num_rows - rows[name].null_count
    means = {name: total / n for name, (total, n) in sums.items() if n}
    return Written(target.place.name, progress, counts, means)
