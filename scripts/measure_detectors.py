"""What every loadable face detector finds on the sample, on CelebA test photos and in crowds, and how fast.

    python scripts/measure_detectors.py [--photos 100] [--celeba FOLDER] [--crowds FOLDER] [--weights NAME=FILE ...]

Prints a Markdown table. Sample and CelebA photos are square, `--size` pixels a side; crowd photos are shrunk into
1024 x 1024 where larger. `--weights` names the file of a detector whose weights are not packaged (or replaces those of
one whose are); a detector without weights is listed as not measured. The time is the median batch's on one
thread, in CPU time, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tsdf_ray.detectors import DETECTORS, Detector, load_detector
from tsdf_ray.detectors.base import MAX_SIDE
from tsdf_ray.errors import UserError
from tsdf_ray.faces import Counts, FacesConfig, load_splits
from tsdf_ray.faces.decode import load_photo

BATCH = 10
HEADER = "| detector | photos | with a face | faces | mean score | CPU ms per photo |"


@dataclass(frozen=True)
class Row:
    """What one detector found on one set."""

    detector: str
    set: str
    photos: int
    with_face: int
    scores: tuple[float, ...]
    """Of all faces found."""
    milliseconds: float

    def __str__(self) -> str:
        share = f"{self.with_face / self.photos:.0%}"
        score = f"{statistics.fmean(self.scores):.3f}" if self.scores else "none found"
        return (
            f"| {self.detector} | {self.photos} {self.set} | {share} | {len(self.scores)} | {score} "
            f"| {self.milliseconds:.1f} |"
        )


def measure(name: str, detector: Detector, kind: str, batches: list[torch.Tensor], score: float) -> Row:
    """One row; each batch is float32 [B, 3, H, W] in [-1, 1], at least one photo in all."""
    detector.detect(batches[0], score)  # the first pass of a size is slower
    times, with_face = [], 0
    scores: list[float] = []
    for batch in batches:
        start = time.process_time()
        found = detector.detect(batch, score)
        times.append((time.process_time() - start) / len(batch) * 1000)
        with_face += sum(len(boxes) > 0 for boxes in found)
        scores += [float(value) for boxes in found for value in boxes.scores_N]
    return Row(name, kind, sum(map(len, batches)), with_face, tuple(scores), statistics.median(times))


def squares(config: FacesConfig) -> list[torch.Tensor]:
    """The evaluation split of a source, in batches."""
    return list(torch.split(load_splits(config, 0).evaluation.images(), BATCH))


def crowds(folder: Path) -> list[torch.Tensor]:
    """Every JPEG of the folder at its own size, shrunk into MAX_SIDE x MAX_SIDE where larger."""
    found = []
    for path in sorted(folder.glob("*.jpg")):
        photo = Image.fromarray(load_photo(path))
        photo.thumbnail((MAX_SIDE, MAX_SIDE))
        found.append(torch.from_numpy(np.array(photo)).permute(2, 0, 1).float()[None] / 127.5 - 1)
    if not found:
        raise UserError(f"{folder}: no .jpg files")
    return found


def rows(sets: Mapping[str, list[torch.Tensor]], weights: Mapping[str, Path], score: float) -> Iterator[Row | str]:
    """Every detector on every set; a line of text for one that cannot be loaded."""
    for name in DETECTORS:
        try:
            detector = load_detector(name, weights.get(name))
        except UserError as error:
            yield f"not measured: {error}"
            continue
        for kind, batches in sets.items():
            yield measure(name, detector, kind, batches, score)


def named_file(text: str) -> tuple[str, Path]:
    """`NAME=FILE` -> its two parts."""
    name, separator, path = text.partition("=")
    if not separator or name not in DETECTORS:
        raise argparse.ArgumentTypeError(f"expected NAME=FILE with NAME one of {', '.join(DETECTORS)}, found {text!r}")
    return name, Path(path)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=int, default=100, help="of the sample, and of CelebA")
    parser.add_argument("--size", type=int, default=128, help="side of sample and CelebA photos")
    parser.add_argument("--celeba", type=Path, help="folder in CelebA's own layout")
    parser.add_argument("--crowds", type=Path, help="folder of JPEG photos with many faces")
    parser.add_argument("--weights", type=named_file, action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--score", type=float, default=0.7, help="faces must score higher")
    args = parser.parse_args()
    torch.set_num_threads(1)
    counts = Counts(defender=1, attacker=1, evaluation=args.photos)
    sets = {"sample": squares(FacesConfig(counts=counts, size=args.size))}
    if args.celeba:
        sets["CelebA test"] = squares(FacesConfig(source="celeba", path=args.celeba, counts=counts, size=args.size))
    if args.crowds:
        sets["crowd"] = crowds(args.crowds)
    print(HEADER)
    print("|---" * HEADER.count(" | ") + "|---|")
    omitted = []
    for row in rows(sets, dict(args.weights), args.score):
        if isinstance(row, Row):
            print(row, flush=True)
        else:
            omitted.append(row)
    print("\n".join(["", *omitted]))


if __name__ == "__main__":
    main()
