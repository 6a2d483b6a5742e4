"""Strips of pictures from a round's samples: what was published, what detectors saw, what the forger made of it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError, safe_open

from tsdf_ray.errors import UserError
from tsdf_ray.report.data import Key, Run

LARGEST = 256
"""Pictures are shown at most this many pixels wide; larger ones are reduced."""
PER_PAIR = 3

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Box:
    """A detector's box in pixels of the photo."""

    detector: str
    white_box: bool
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Picture:
    """One picture of a strip."""

    caption: str
    uri: str
    boxes: tuple[Box, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Strip:
    """All pictures of one photo."""

    photo: str
    edit: str
    size: int
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class PairStrips:
    """The strips of a defender against an attacker, from one seed's last round."""

    pair: Key
    round: int
    seed: int
    strips: tuple[Strip, ...]


def pair_strips(run: Run, pair: Key) -> PairStrips | None:
    """Samples of the pair's last round with the first seed that has any; None when the run kept none.

    Raises UserError when the file of samples is damaged.
    """
    for seed in run.seeds:
        folder = run.root / "samples" / f"{pair[0]}-vs-{pair[1]}-s{seed}"
        files = sorted(folder.glob("round-*.safetensors"))
        if not files:
            continue
        tensors, notes = _read(files[-1])
        if "photo" not in tensors or len(tensors["photo"]) == 0:
            continue
        ids, edits = json.loads(notes.get("ids", "[]")), json.loads(notes.get("edits", "[]"))
        count = min(len(tensors["photo"]), PER_PAIR)
        strips = tuple(
            _strip(run, pair[0], tensors, i, _at(ids, i, f"photo {i + 1}"), _at(edits, i, "")) for i in range(count)
        )
        return PairStrips(pair, int(files[-1].stem.removeprefix("round-")), seed, strips)
    return None


def _strip(run: Run, defender: str, tensors: Mapping[str, Any], i: int, photo: str, edit: str) -> Strip:
    def pixels(name: str) -> Pixels | None:
        return np.asarray(tensors[name][i]).transpose(1, 2, 0) if name in tensors else None

    clean, published = pixels("photo"), pixels("published")
    assert clean is not None
    pictures: list[Picture] = []

    def add(caption: str, image: Pixels | None, prefix: str = "") -> None:
        if image is not None:
            boxes, notes = _boxes(run, defender, tensors, prefix, i) if prefix else ((), ())
            pictures.append(Picture(caption, data_uri(image), boxes, notes))

    add("Photo", clean)
    add("Published", published)
    if published is not None:
        difference = np.clip(127.5 + 10.0 * (published.astype(float) - clean), 0, 255).astype(np.uint8)
        add("Difference × 10", difference)
    add("Detected, photo", clean, "clean_boxes.")
    add("Detected, published", published, "boxes.")
    add("Forgery of the photo", pixels("forgery_clean"))
    add("Forgery of the published photo, before retraining", pixels("forgery_before"))
    add("Forgery of the published photo, after retraining", pixels("forgery_after"))
    return Strip(photo, edit.replace("_", " "), clean.shape[0], tuple(pictures))


def _boxes(
    run: Run, defender: str, tensors: Mapping[str, Any], prefix: str, i: int
) -> tuple[tuple[Box, ...], tuple[str, ...]]:
    """Boxes of every detector on sample `i`, and in words who found how many faces."""
    boxes: list[Box] = []
    words: list[str] = []
    for name in sorted(key.removeprefix(prefix) for key in tensors if key.startswith(prefix)):
        rows = [row for row in np.asarray(tensors[prefix + name]).reshape(-1, 6) if int(row[0]) == i]
        known = run.white_box(defender, name)
        boxes += [Box(name, known, *(float(v) for v in (r[1], r[2], r[3] - r[1], r[4] - r[2]))) for r in rows]
        found = {0: "no face", 1: "a face"}.get(len(rows), f"{len(rows)} faces")
        words.append(f"{name}: {found}")
    return tuple(boxes), tuple(words)


def data_uri(image: Pixels) -> str:
    """The picture inside the page: JPEG, quality 95, full colour resolution, at most LARGEST pixels wide."""
    picture = Image.fromarray(image)
    if picture.width > LARGEST:
        picture = picture.resize((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _read(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it from a copy") from error


def _at(values: list[Any], i: int, otherwise: str) -> str:
    return str(values[i]) if i < len(values) else otherwise
