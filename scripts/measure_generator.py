"""How well a generator edits the sample's held-out photos, by the independent judge.

    python scripts/measure_generator.py [WEIGHTS] [--photos 512] [--grid FILE.png]

Prints edit success per attribute, hair colours together, and the identity error mean |G(x, own labels) - x|; the photos
are the packaged sample's evaluation split, which no generator, classifier or judge was trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tsdf_ray.faces import HAIR, Counts, FacesConfig, FaceSet, all_edits, load_splits, to_pixels
from tsdf_ray.generators import Family, load_family
from tsdf_ray.judges import load_judge
from tsdf_ray.metrics import Evaluator, Stage


def measure(weights: str, photos: int) -> dict[str, float]:
    """Shares in [0, 1] by attribute, `hair`, and `identity_error`."""
    family = load_family(weights).freeze()
    counts = Counts(defender=1, attacker=1, evaluation=photos)
    held_out = load_splits(FacesConfig(counts=counts), 0, family.attributes).evaluation
    evaluator = Evaluator(load_judge("judge-128", held_out.attributes), {}, held_out, family)
    rows = evaluator.clean_rows(Stage(0, 0, "reference", model="none"), family).to_pandas()
    success = rows[rows.metric == "edit_success"]
    figures = {str(name): float(share) for name, share in success.groupby("edit")["value"].mean().items()}
    figures["hair"] = float(success[success.edit.isin(HAIR)]["value"].mean())
    figures["identity_error"] = float(rows[rows.metric == "identity_error"]["value"].mean())
    return figures


def grid(family: Family, faces: FaceSet, path: Path) -> None:
    """One row per photo: the photo, then its edits."""
    edits = all_edits(faces.labels(), faces.attributes)
    with torch.inference_mode():
        forged = to_pixels(family.edit(faces.images()[edits.photo_P], edits.target_PA)).numpy()
    rows = []
    for b, photo in enumerate(faces.pixels_BCHW):
        own = [forged[p] for p in torch.nonzero(edits.photo_P == b).flatten().tolist()]
        rows.append(np.concatenate([photo, *own[:3]], axis=2))
    half = len(rows) // 2
    sides = [np.concatenate(part, axis=1) for part in (rows[:half], rows[half : 2 * half])]
    Image.fromarray(np.concatenate(sides, axis=2).transpose(1, 2, 0)).save(path)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("weights", nargs="?", default="editor-128")
    parser.add_argument("--photos", type=int, default=512)
    parser.add_argument("--grid", type=Path)
    args = parser.parse_args()
    for name, value in measure(args.weights, args.photos).items():
        print(f"{name:>16}  {value:.3f}")
    if args.grid:
        family = load_family(args.weights).freeze()
        counts = Counts(defender=1, attacker=1, evaluation=16)
        grid(family, load_splits(FacesConfig(counts=counts), 0, family.attributes).evaluation, args.grid)


if __name__ == "__main__":
    main()
