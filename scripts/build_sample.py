"""Build the packaged sample of synthetic faces from labelled faces: filters, splits, one Parquet file.

    python scripts/build_sample.py FACES_DIR [MORE_FACES_DIR ...]

A face enters the sample when its number is the sample's (`split_faces.split_of`), it was not excluded by eye
(`excluded_faces.txt`), the labeller is sure of it (or a person corrected it: `corrected_labels.txt`), both packaged
detectors find it in the very bytes that are packaged, and it is no near-duplicate of another. Counts of each filter go
to `.cache/sample.json`.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from face_lists import ATTRIBUTES, CACHE, ROOT, corrected, excluded, split_of
from PIL import Image
from sample_photos import square
from split_faces import SURE

from tsdf_ray.detectors import load_detector

OUT = ROOT / "tsdf_ray" / "assets" / "sample" / "faces-128.parquet"
SIZES = {"evaluation": 512, "defender": 512, "attacker": 576}
SHARE = {"evaluation": 0.4, "defender": 0.3, "attacker": 0.3}
"""Most of a cell (hair colour and sex) that a split takes while splits are balanced."""
QUALITY, SCORE, TWIN = 92, 0.7, 0.9
Pixels = npt.NDArray[np.uint8]


def labelled(counts: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Number -> Black_Hair, Blond_Hair, Brown_Hair, Male of every face that may enter."""
    table = pq.read_table(CACHE / "synthetic_labels.parquet").to_pydict()
    corrections = corrected()
    left_out = excluded()
    hair_sure, male_sure = SURE["sample"]
    faces: dict[str, tuple[int, ...]] = {}
    for k, face in enumerate(table["id"]):
        if split_of(face) != "sample":
            continue
        counts["faces with a number of the sample"] += 1
        if face in left_out:
            counts["left out by eye"] += 1
            continue
        hair = [table[f"p_{name}"][k] for name in ("black", "blond", "brown")]
        male = table["p_male"][k]
        if face in corrections:
            faces[face] = corrections[face]
            counts["labels corrected by eye"] += 1
        elif max(hair) < hair_sure or max(male, 1 - male) < male_sure:
            counts["labeller not sure"] += 1
        else:
            faces[face] = (*(int(value == max(hair)) for value in hair), int(male > 0.5))
    return faces


def jpeg(path: Path) -> bytes:
    """The photo at 128 px as JPEG bytes without chroma subsampling."""
    out = io.BytesIO()
    square(path, 128).save(out, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return out.getvalue()


def decoded(data: list[bytes]) -> Pixels:
    """uint8 [B, 128, 128, 3] of JPEG bytes."""
    return np.stack([np.asarray(Image.open(io.BytesIO(item)).convert("RGB")) for item in data])


def detected(pixels: Pixels) -> npt.NDArray[np.bool_]:
    """Which photos show a face to both packaged detectors with a score above 0.7."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = np.ones(len(x), bool)
    for name in ("retinaface", "mtcnn"):
        detector = load_detector(name)
        boxes = [box for part in x.split(50) for box in detector.detect(part, score_threshold=SCORE)]
        found &= np.array([len(box) > 0 for box in boxes])
    return found


def twins(pixels: Pixels) -> list[tuple[int, int, float]]:
    """Pairs (earlier, later, cosine) of near-duplicates: standardised 16 px thumbnails with a cosine above `TWIN`."""
    small = np.stack([np.asarray(Image.fromarray(p).resize((16, 16), Image.Resampling.BOX)) for p in pixels])
    flat = small.reshape(len(small), -1).astype(np.float32)
    flat = (flat - flat.mean(0)) / flat.std(0)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    cosine = np.triu(flat @ flat.T, 1)
    return [(int(a), int(b), float(cosine[a, b])) for a, b in zip(*np.where(cosine > TWIN), strict=True)]


def splits(labels: list[tuple[int, ...]]) -> list[str | None]:
    """A split per face: evaluation first, as balanced over hair and sex as cells allow; the rest drawn at random."""
    rng = np.random.default_rng(2026)
    order = rng.permutation(len(labels))
    cells: dict[tuple[int, ...], list[int]] = {}
    for k in order:
        cells.setdefault(labels[k], []).append(int(k))
    result: list[str | None] = [None] * len(labels)
    limit = {cell: int(np.ceil(SHARE["evaluation"] * len(members))) for cell, members in cells.items()}
    chosen: list[int] = []
    for depth in range(max(limit.values())):
        chosen += [members[depth] for cell, members in sorted(cells.items()) if depth < limit[cell]]
    for k in chosen[: SIZES["evaluation"]]:
        result[k] = "evaluation"
    # The other splits keep the proportions of what is left: cells are dealt out one after another.
    rest = [k for cell, members in sorted(cells.items()) for k in members if result[k] is None]
    for place, k in enumerate(rest):
        result[k] = "attacker" if place % 17 % 2 == 0 else "defender"  # 9 of 17, the proportion 576 : 512
    for name in ("defender", "attacker"):
        surplus = [k for k in order if result[k] == name][SIZES[name] :]
        for k in surplus:
            result[k] = None
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(1)

    counts: Counter[str] = Counter()
    place = {path.stem: path for folder in args.faces for path in folder.glob("*.jpg")}
    faces = labelled(counts)
    ids = sorted(faces)
    data = [jpeg(place[face]) for face in ids]
    pixels = decoded(data)
    found = detected(pixels)
    counts["not found by both detectors"] = int((~found).sum())
    pairs = twins(pixels)
    double = {later for _, later, _ in pairs}
    counts["near-duplicates"] = len(double)
    kept = [k for k in range(len(ids)) if found[k] and k not in double]
    split = splits([faces[ids[k]] for k in kept])
    counts["surplus"] = sum(name is None for name in split)
    rows = [(k, name) for k, name in zip(kept, split, strict=True) if name is not None]
    counts["packaged"] = len(rows)

    columns: dict[str, pa.Array] = {
        "id": pa.array([ids[k] for k, _ in rows]),
        "split": pa.array([name for _, name in rows]),
        "image": pa.array([data[k] for k, _ in rows], pa.binary()),
    }
    for a, attribute in enumerate(ATTRIBUTES):
        columns[attribute] = pa.array([faces[ids[k]][a] for k, _ in rows], pa.int8())
    OUT.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), OUT, row_group_size=128, compression="none", use_dictionary=["split"])
    cells = Counter((name, *faces[ids[k]]) for k, name in rows)
    report = {"filters": dict(counts), "cells": {" ".join(map(str, cell)): n for cell, n in sorted(cells.items())}}
    report["twins"] = [[ids[a], ids[b], round(cosine, 3)] for a, b, cosine in pairs]
    report["bytes"] = OUT.stat().st_size
    (CACHE / "sample.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
