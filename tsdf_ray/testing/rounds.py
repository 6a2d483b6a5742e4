"""Made-up rounds: everything a finished round leaves, drawn instead of played, to test and measure the store."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tsdf_ray.attackers import Retrained
from tsdf_ray.digest import array_digest
from tsdf_ray.faces import FaceSet
from tsdf_ray.faces.splits import Splits
from tsdf_ray.game.materials import Materials
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.game.steps import Learned, Measured, Published, RoundResult
from tsdf_ray.generators import Tensors
from tsdf_ray.metrics import Stage, make_rows
from tsdf_ray.randomness import numpy_rng

SIDE = 8
EDITS = ("Black_Hair", "Male")


@dataclass(frozen=True)
class _Prepared:
    photos: FaceSet


def made_up_faces(seed: int, name: str, photos: int) -> FaceSet:
    """`photos` photos of noise."""
    rng = numpy_rng(seed, "made up", name)
    pixels = rng.integers(0, 256, (photos, 3, SIDE, SIDE), dtype=np.uint8)
    labels = rng.integers(0, 2, (photos, len(EDITS)), dtype=np.uint8)
    return FaceSet(pixels, labels, EDITS, tuple(f"{name}-{i:03d}.png" for i in range(photos)))


def made_up_materials(seed: int, photos: int = 4) -> Materials:
    """What the matches of a seed share."""
    faces = [made_up_faces(seed, name, photos) for name in ("defender", "attacker", "evaluation")]
    return Materials(Splits(faces[0], faces[1], faces[2]), _tensors(seed, "G", 0))


def made_up_round(match: MatchSpec, round: int, materials: Materials) -> RoundResult:
    """Depends on match and round alone, as a played round does."""
    faces, names = materials.splits.evaluation, (match.id, round)
    rng = numpy_rng(match.seed, "made up", *names)
    published = faces.with_pixels(rng.integers(0, 256, faces.pixels_BCHW.shape, dtype=np.uint8))
    photos = np.repeat(faces.ids, len(EDITS)).tolist()
    edits = list(EDITS) * len(faces)

    def forged(stage: Stage) -> Measured:
        drawn = {name: rng.random(len(photos)) for name in ("sr_mask", "edit_success", "protection")}
        return Measured(make_rows(stage, photos, drawn, edits), {}, {})

    before = forged(Stage(round, round - 1, "before"))
    stages = [Stage(round, round, "after"), Stage(round, round, "reference", model="none")]
    stages += [Stage(round, round, "decay", share) for share in (0.0, 0.5, 1.0)]
    tables = [forged(stage).rows for stage in stages]
    alone = {"detection": ("duq", "mtcnn"), "visibility": ("psnr", ""), "preparation": ("yield", "")}
    for phase, (metric, model) in alone.items():
        tables.append(make_rows(Stage(round, round, phase, model=model), faces.ids, {metric: rng.random(len(faces))}))
    notes = {"ids": json.dumps(faces.ids[:1]), "edits": json.dumps(EDITS[:1])}
    samples = {"photo": faces.pixels_BCHW[:1], "published": published.pixels_BCHW[:1]}
    learned = _tensors(match.seed, "w", *names)
    chosen = np.arange(len(materials.splits.attacker))
    outcome = {
        "learn": Learned(learned, array_digest(learned)),
        "publish": Published(materials.splits.attacker, chosen, published),
        "prepare": _Prepared(materials.splits.attacker),
        "retrain": Retrained(_tensors(match.seed, "G", *names), {}, 4, {}),
        "before": Measured(before.rows, samples, notes),
        "after": Measured(pa.concat_tables(tables), {}, {}),
    }
    return RoundResult.of(match, round, outcome)


def _tensors(seed: int, *names: str | int) -> Tensors:
    return {"generator.weight": numpy_rng(seed, "made up", *names).random((4, 4), dtype=np.float32)}
