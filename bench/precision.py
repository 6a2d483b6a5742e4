"""SR_mask of `found` learned and judged in float32 and in bfloat16, on the packaged editor."""

from __future__ import annotations

import numpy as np
import torch

from tsdf_ray.defenders import Knowledge, make_defender
from tsdf_ray.faces import Counts, FacesConfig, all_edits, load_splits
from tsdf_ray.generators.weights import load_family
from tsdf_ray.metrics.bootstrap import interval, photo_counts, ratio
from tsdf_ray.metrics.interruption import interruption_measures, l2_mask, region

PHOTOS = 64
EPSILON = 0.02
"""Small enough that some forgeries survive."""
CHUNK = 32
RESAMPLES = 1000


def sr_mask() -> dict[str, tuple[float, float, float]]:
    """By precision: value and interval over 64 photos that the defence did not learn on, in all their edits."""
    family = load_family("editor-128").freeze()
    counts = Counts(defender=PHOTOS, attacker=1, evaluation=PHOTOS)
    splits = load_splits(FacesConfig(counts=counts), 0, family.attributes)
    photos = splits.evaluation
    edits = all_edits(photos.labels(), photos.attributes)
    owner_P = edits.photo_P.numpy()
    times_RB = photo_counts(0, 0, photos.ids, np.ones(RESAMPLES, dtype=np.int64))
    found = {}
    for precision in ("float32", "bfloat16"):
        defender = make_defender("found", {"epsilon": EPSILON, "epochs": 2})
        knowledge = Knowledge(0, 1, {family.name: family}, {}, splits.defender, precision)
        published = defender.protect(defender.learn(knowledge), photos).images()
        values = []
        for first in range(0, len(edits), CHUNK):
            part = slice(first, first + CHUNK)
            target, x = edits.target_PA[part], photos.images()[edits.photo_P[part]]
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                clean, forged = family.edit(x, target), family.edit(published[edits.photo_P[part]], target)
            values.append(l2_mask(region(x, clean), clean, forged).numpy())
        broken_P, weight_P = interruption_measures(np.concatenate(values))["sr_mask"]
        sums_B, weights_B = (np.bincount(owner_P, v, minlength=len(photos)) for v in (broken_P * weight_P, weight_P))
        low, high = interval(ratio(times_RB @ sums_B, times_RB @ weights_B)[None])
        found[precision] = (float(sums_B.sum() / weights_B.sum()), float(low[0]), float(high[0]))
    return found
