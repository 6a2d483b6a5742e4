"""From rows per photo and edit to values with 95 % intervals: per seed, and pooled over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tsdf_ray.metrics.bootstrap import Draws, interval
from tsdf_ray.metrics.curves import derive
from tsdf_ray.metrics.resample import Groups, Key, MeasuredOn, resample

METRICS = pa.schema(
    [
        ("seed", pa.int64()),
        ("defender", pa.string()),
        ("attacker", pa.string()),
        ("round", pa.int64()),
        ("judged_round", pa.int64()),
        ("step_share", pa.float64()),
        ("phase", pa.string()),
        ("split", pa.string()),
        ("model", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n", pa.int64()),
        ("reason", pa.string()),
        ("censored_above", pa.float64()),
    ]
)
"""Columns of tables/metrics.parquet. `seed` is null where all seeds are pooled. A value that cannot be computed is null
with a `reason`; a half-life that was not reached is null with `censored_above`, and so is its open upper bound."""

REASONS = {
    "l2_mask": "the edited region R is empty for every pair",
    "sr_mask": "the edited region R is empty for every pair",
    "edit_success": "the judge knows none of the edits",
    "protection": "the judge knows none of the edits",
    "duq": "the detector finds no face on the clean photos",
    "recall": "the detector finds no face on the clean photos",
    "score_change": "the detector finds no face on the clean photos",
    "precision": "the detector finds nothing on the published photos",
    "f1": "the detector finds nothing on clean and published photos",
    "psnr": "the images are identical: PSNR is infinite",
    "forgery_psnr": "the forgeries are identical: PSNR is infinite",
    "crop_iou": "no photo has a face box both with and without protection",
    "steps": "the attacker did not retrain in this round",
    "photos_seen": "the attacker did not retrain in this round",
}
_SETS = {
    "frechet_": "too few forgeries: a Fréchet distance needs two per feature of the network, and 200",
    "kernel_": "too few forgeries: a kernel distance needs 200",
}


def aggregate(images: pa.Table, resamples: int, run_seed: int, draws: Draws | None = None) -> pa.Table:
    """tables/images.parquet -> tables/metrics.parquet (schema `METRICS`), per seed and pooled.

    Intervals are hierarchical bootstrap percentiles (bootstrap.py). Derived from the curves of SR_mask: persistence,
    half_life, persistence_rounds, half_life_rounds, each also with suffix _initial (curves.py). Values do not depend on
    the order of the rows, nor on `draws`, which saves drawing again where a run is aggregated pair by pair.
    """
    tables = [METRICS.empty_table()]
    draws = draws or Draws()
    for pair in _pairs(images):
        for seed, groups in resample(pair, resamples, run_seed, draws):
            tables += [_table(groups, seed), _derived_table(groups, seed)]
    return pa.concat_tables(tables).combine_chunks()


def differences(images: pa.Table, metrics: Sequence[str], resamples: int, run_seed: int) -> pa.Table:
    """Defender minus other defender against the same attacker, paired by photo and seed, pooled over seeds.

    Columns: `other` and those of `METRICS` without seed, reason and censored_above. Only what both were measured for on
    the same photos and seeds has a row.
    """
    named = images.filter(pc.is_in(images["metric"], pa.array(list(metrics), pa.string())))
    against: dict[str, dict[str, Groups]] = {}
    draws = Draws()
    for pair in _pairs(named):
        *_, (_, groups) = resample(pair, resamples, run_seed, draws)
        key = groups.keys[0]
        against.setdefault(key.attacker, {})[key.defender] = groups
    rows: list[dict[str, Any]] = []
    for defenders in against.values():
        names = list(defenders)
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                rows += _paired(defenders[one], defenders[other], other)
    fields = [field for field in METRICS if field.name not in {"seed", "reason", "censored_above"}]
    return pa.Table.from_pylist(rows, pa.schema([*fields, pa.field("other", pa.string())]))


def _paired(a: Groups, b: Groups, other: str) -> Iterator[dict[str, Any]]:
    place = {_like(key, photos): j for j, (key, photos) in enumerate(zip(b.keys, b.photos, strict=True))}
    for i, (key, photos) in enumerate(zip(a.keys, a.photos, strict=True)):
        j = place.get(_like(key, photos))
        if j is None or not (np.isfinite(a.value_G[i]) and np.isfinite(b.value_G[j])):
            continue
        low, high = interval((a.replicates_GR[i] - b.replicates_GR[j])[None])
        yield key._asdict() | {
            "other": other,
            "value": float(a.value_G[i] - b.value_G[j]),
            "low": float(low[0]),
            "high": float(high[0]),
            "n": int(min(a.n_G[i], b.n_G[j])),
        }


def _like(key: Key, photos: MeasuredOn) -> tuple[Key, MeasuredOn]:
    return key._replace(defender=""), photos


def _pairs(images: pa.Table) -> Iterator[pa.Table]:
    """Rows of one defender against one attacker at a time, so that memory stays with the largest pair."""
    names = [pc.unique(images[column]) for column in ("defender", "attacker")]
    if images.num_rows and all(len(values) == 1 for values in names):
        yield images
        return
    seen = dict.fromkeys(zip(images["defender"].to_pylist(), images["attacker"].to_pylist(), strict=True))
    for defender, attacker in seen:
        mask = pc.and_(pc.equal(images["defender"], defender), pc.equal(images["attacker"], attacker))
        yield images.filter(mask)


def _table(groups: Groups, seed: int | None) -> pa.Table:
    low_G, high_G = interval(groups.replicates_GR)
    known_G = np.isfinite(groups.value_G)
    reasons = [None if known else reason_for(key.metric) for key, known in zip(groups.keys, known_G, strict=True)]
    columns = {name: [getattr(key, name) for key in groups.keys] for name in Key._fields} | {
        "seed": [seed] * len(groups.keys),
        "value": _nullable(groups.value_G),
        "low": _nullable(np.where(known_G, low_G, np.nan)),
        "high": _nullable(np.where(known_G, high_G, np.nan)),
        "n": groups.n_G.tolist(),
        "reason": reasons,
        "censored_above": [None] * len(groups.keys),
    }
    return pa.table({name: pa.array(columns[name], METRICS.field(name).type) for name in METRICS.names}, METRICS)


def reason_for(metric: str) -> str:
    """Why a metric of zero total weight is not available."""
    for prefix, why in _SETS.items():
        if metric.startswith(prefix):
            return why
    return REASONS.get(metric.removesuffix("_50").removesuffix("_initial"), "nothing to measure")


def _derived_table(groups: Groups, seed: int | None) -> pa.Table:
    derived = list(derive(groups))
    if not derived:
        return METRICS.empty_table()
    rows = []
    low_D, high_D = interval(np.stack([found.replicates_R for found in derived]))
    for found, *ends in zip(derived, low_D, high_D, strict=True):
        missing = np.isnan(found.value)
        bounds = [np.nan, np.nan] if missing else ends
        value, low, high = _nullable(np.array([found.value, *bounds]))
        open_above = found.end is not None and not missing and high is None
        rows.append(
            found.keys
            | {"seed": seed, "value": value, "low": low, "high": high, "n": found.n, "reason": found.reason}
            | {"censored_above": found.end if open_above else None}
        )
    return pa.Table.from_pylist(rows, METRICS)


def _nullable(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
