"""Intervals: constant data, known standard errors, seeds before photos, pairs, missing values, curves, the summary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdf_ray.metrics import METRICS, Stage, aggregate, differences, make_rows, summarise
from tsdf_ray.metrics.bootstrap import Draws, interval, photo_counts, seed_counts
from tsdf_ray.metrics.rows import Measures

AFTER = Stage(1, 1, "after")


def measured(
    measures: Measures,
    stage: Stage = AFTER,
    *,
    seed: int = 0,
    defender: str = "d",
    attacker: str = "a",
    photos: str = "p",
) -> pa.Table:
    """Rows of a match; photo i of seed s has an id of its own."""
    first = next(iter(measures.values()))
    count = len(first[0] if isinstance(first, tuple) else first)
    rows = make_rows(stage, [f"{photos}{seed}.{i:04d}" for i in range(count)], measures)
    for position, (name, value) in enumerate({"seed": seed, "defender": defender, "attacker": attacker}.items()):
        rows = rows.add_column(position, name, pa.array([value] * rows.num_rows))
    return rows


def pooled(table: pa.Table, metric: str, **keys: Any) -> dict[str, Any]:
    """The pooled row of a metric (or the row of `seed`)."""
    wanted = {"seed": None, "metric": metric} | keys
    found = [row for row in table.to_pylist() if all(row[name] == value for name, value in wanted.items())]
    assert len(found) == 1, f"{len(found)} rows for {wanted}"
    return dict(found[0])


@settings(deadline=None, max_examples=12)
@given(st.integers(2, 60), st.integers(1, 4), st.floats(0, 1), st.integers(0, 2**31 - 1))
def test_an_interval_contains_its_estimate(photos: int, seeds: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = pa.concat_tables([measured({"m": rng.random(photos) < share}, seed=s) for s in range(seeds)])
    table = aggregate(rows, 100, 0)
    for row in table.to_pylist():
        assert row["low"] <= row["value"] <= row["high"]
        assert row["low"] >= 0
        assert row["high"] <= 1


def test_constant_data_has_an_interval_of_no_width() -> None:
    rows = pa.concat_tables([measured({"m": np.full(20, 0.3)}, seed=s) for s in range(3)])
    row = pooled(aggregate(rows, 200, 0), "m")
    assert row["value"] == pytest.approx(0.3)
    assert row["low"] == pytest.approx(0.3)
    assert row["high"] == pytest.approx(0.3)
    assert row["n"] == 60


def test_the_width_is_that_of_the_standard_error() -> None:
    values = np.arange(400) % 5 == 0  # mean .2, standard error sqrt(.2 x .8 / 400) = .02
    row = pooled(aggregate(measured({"m": values}), 4000, 0), "m")
    assert row["low"] == pytest.approx(0.2 - 1.96 * 0.02, abs=0.004)
    assert row["high"] == pytest.approx(0.2 + 1.96 * 0.02, abs=0.004)


def test_edits_of_a_photo_are_drawn_together() -> None:
    values = np.arange(100) % 2 == 0
    once = measured({"m": values})
    thrice = pa.concat_tables([once, once, once])
    one, three = (pooled(aggregate(rows, 500, 0), "m") for rows in (once, thrice))
    # Three rows of the same photo are no new evidence: the same interval from three times the rows.
    assert (one["low"], one["high"]) == pytest.approx((three["low"], three["high"]))
    assert (one["n"], three["n"]) == (100, 300)


def test_seeds_that_differ_widen_the_pooled_interval() -> None:
    def race(means: Mapping[int, float]) -> dict[str, Any]:
        rng = np.random.default_rng(1)
        rows = [measured({"m": rng.random(200) < mean}, seed=s) for s, mean in means.items()]
        return pooled(aggregate(pa.concat_tables(rows), 1000, 0), "m")

    alike, apart = race({0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5}), race({0: 0.2, 1: 0.4, 2: 0.6, 3: 0.8})
    assert alike["value"] == pytest.approx(apart["value"], abs=0.05)
    assert apart["high"] - apart["low"] > 3 * (alike["high"] - alike["low"])
    # Between-seed standard deviation sqrt(.05) over sqrt(4) seeds, times 2 x 1.96, plus little from the photos.
    assert apart["high"] - apart["low"] == pytest.approx(2 * 1.96 * math.sqrt(0.05 / 4), abs=0.08)


def test_one_seed_pooled_is_that_seed() -> None:
    rows = measured({"m": np.arange(50) % 3 == 0}, seed=4)
    table = aggregate(rows, 300, 0)
    one, all_ = pooled(table, "m", seed=4), pooled(table, "m")
    assert {**one, "seed": None} == all_


def test_ratios_are_ratios_of_resampled_sums() -> None:
    tp_fp, faces = np.array([2.0, -1, 0, 0] * 20), np.array([2.0, 1, 1, 0] * 20)
    table = aggregate(measured({"duq": (tp_fp, faces)}), 1000, 0)
    row = pooled(table, "duq")
    assert row["value"] == pytest.approx(1 / 4)
    assert row["n"] == 60
    assert row["low"] < 0.25 < row["high"]


def test_nothing_to_measure_is_null_with_a_reason() -> None:
    none = np.zeros(5)
    table = aggregate(measured({"duq": (none, none), "sr_mask_initial": (none, none), "m": np.ones(5)}), 100, 0)
    duq = pooled(table, "duq")
    assert (duq["value"], duq["low"], duq["high"], duq["n"]) == (None, None, None, 0)
    assert duq["reason"] == "the detector finds no face on the clean photos"
    assert "R is empty" in pooled(table, "sr_mask_initial")["reason"]
    assert pooled(table, "m")["reason"] is None
    assert table.schema == METRICS


def test_the_order_of_rows_and_other_matches_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    own = pa.concat_tables([measured({"m": rng.random(30), "k": rng.random(30)}, seed=s) for s in (0, 1)])
    other = measured({"m": rng.random(30)}, defender="z")
    back = own.take(pa.array(np.arange(own.num_rows)[::-1].copy()))
    wanted = pooled(aggregate(own, 200, 5), "m", defender="d")
    for rows in (back, pa.concat_tables([other, own]), pa.concat_tables([own, other])):
        found = pooled(aggregate(rows, 200, 5), "m", defender="d")
        assert (found["low"], found["high"]) == pytest.approx((wanted["low"], wanted["high"]))


def test_a_metric_that_one_seed_lacks_is_pooled_over_the_others() -> None:
    rows = pa.concat_tables([measured({"m": np.full(10, 0.5)}, seed=0), measured({"k": np.full(10, 0.1)}, seed=1)])
    row = pooled(aggregate(rows, 200, 0), "m")
    assert (row["value"], row["low"], row["high"]) == pytest.approx((0.5, 0.5, 0.5))


def test_defenders_are_compared_photo_by_photo() -> None:
    rng = np.random.default_rng(3)
    base = {s: rng.random(60) for s in (0, 1)}
    rows = pa.concat_tables(
        [measured({"m": base[s] + gain}, seed=s, defender=d) for s in base for d, gain in (("good", 0.2), ("bad", 0.0))]
    )
    row = differences(rows, ["m"], 500, 0).to_pylist()
    assert len(row) == 1
    assert (row[0]["defender"], row[0]["other"]) == ("good", "bad")
    # Each photo gains exactly .2: paired, nothing is uncertain, though either defender's own interval is wide.
    assert (row[0]["value"], row[0]["low"], row[0]["high"]) == pytest.approx((0.2, 0.2, 0.2))
    own = pooled(aggregate(rows, 500, 0), "m", defender="good")
    assert own["high"] - own["low"] > 0.05


def test_other_photos_are_not_compared() -> None:
    rows = [measured({"m": np.ones(5)}, defender=d, photos=d) for d in ("x", "y")]
    assert differences(pa.concat_tables(rows), ["m"], 100, 0).num_rows == 0


SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)


def decay(curve: list[float], steps: int = 100, seed: int = 0, r: int = 1, photos: int = 100) -> pa.Table:
    """SR_mask of a round at each share: the first `curve` x photos photos are interrupted."""
    tables = []
    for share, level in zip(SHARES, curve, strict=True):
        stage = Stage(r, r, "decay", share, "G")
        tables.append(measured({"sr_mask": np.arange(photos) < round(level * photos)}, stage, seed=seed))
        trained = np.array([float(steps > 0)])
        tables.append(measured({"steps": (np.array([share * steps]), trained)}, stage, seed=seed, photos="steps"))
    return pa.concat_tables(tables)


def test_persistence_and_half_life_of_a_round() -> None:
    table = aggregate(decay([0.8, 0.6, 0.3, 0.1, 0.0]), 500, 0)
    half, kept = pooled(table, "half_life"), pooled(table, "persistence")
    assert half["value"] == pytest.approx(20)
    assert half["low"] < 20 < half["high"]
    assert kept["value"] == pytest.approx(0.265625)
    assert kept["low"] < 0.265625 < kept["high"]
    assert (half["phase"], half["round"], half["judged_round"]) == ("decay", 1, 1)
    assert half["censored_above"] is None


def test_a_half_life_that_is_not_reached_is_censored() -> None:
    half = pooled(aggregate(decay([0.8, 0.8, 0.7, 0.7, 0.7]), 300, 0), "half_life")
    assert (half["value"], half["high"], half["censored_above"]) == (None, None, 100.0)
    assert "not reached" in half["reason"]


def test_a_half_life_that_some_resamples_do_not_reach_is_open_above() -> None:
    half = pooled(aggregate(decay([0.8, 0.7, 0.6, 0.5, 0.39]), 300, 0), "half_life")
    assert half["value"] == pytest.approx(50 + 50 * 0.1 / 0.11)
    assert half["low"] < half["value"]
    assert (half["high"], half["censored_above"]) == (None, 100.0)


def test_a_curve_that_starts_at_zero_and_a_round_without_retraining() -> None:
    nothing = aggregate(decay([0.0, 0.0, 0.0, 0.0, 0.0]), 100, 0)
    for metric in ("half_life", "persistence"):
        row = pooled(nothing, metric)
        assert (row["value"], row["low"], row["high"], row["censored_above"]) == (None, None, None, None)
        assert "nothing to lose" in row["reason"]
    starved = aggregate(decay([0.7] * 5, steps=0), 100, 0)
    assert pooled(starved, "persistence")["value"] == pytest.approx(1)
    row = pooled(starved, "half_life")
    assert (row["value"], row["censored_above"]) == (None, 0.0)
    assert "did not retrain" in row["reason"]


def test_half_life_over_rounds_starts_at_publication() -> None:
    levels = {1: 0.9, 2: 0.6, 3: 0.3}  # w_2 against G_1, G_2, G_3
    phases = {1: "before", 2: "after", 3: "later"}
    rows = [
        measured({"sr_mask": np.arange(100) < 100 * y}, Stage(2, r, phases[r], model="G")) for r, y in levels.items()
    ]
    table = aggregate(pa.concat_tables(rows), 300, 0)
    assert pooled(table, "half_life_rounds", round=2)["value"] == pytest.approx(1.5)
    assert pooled(table, "persistence_rounds", round=2)["value"] == pytest.approx(0.6 / 0.9)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 2**31 - 1))
def test_counts_draw_seeds_then_photos(seeds: int, photos: int, run_seed: int) -> None:
    times = seed_counts(run_seed, range(seeds), 50)
    assert (times.sum(1) == seeds).all()
    counts = photo_counts(run_seed, 0, [str(p) for p in range(photos)], times[:, 0])
    np.testing.assert_array_equal(counts.sum(1), times[:, 0] * photos)
    np.testing.assert_array_equal(counts, photo_counts(run_seed, 0, [str(p) for p in range(photos)], times[:, 0]))


def test_draws_are_kept_and_are_the_same() -> None:
    names = [[f"{seed}.{i}" for i in range(20)] for seed in range(3)]
    times = seed_counts(0, (0, 1, 2), 50)
    roomy, tight = Draws(), Draws(most_bytes=1500)  # one draw of 50 x 20 counts, a byte each
    for _ in range(2):
        for seed in range(3):
            wanted = photo_counts(0, seed, names[seed], times[:, seed])
            for draws in (roomy, tight):
                found = draws.photo_counts(0, seed, names[seed], times[:, seed])
                np.testing.assert_array_equal(found, wanted)
                found[:] = -1  # the caller's own
    assert len(roomy._kept) == 3
    assert len(tight._kept) == 1
    ones = np.ones(50, dtype=np.int64)
    np.testing.assert_array_equal(roomy.photo_counts(0, 0, names[0], ones), photo_counts(0, 0, names[0], ones))


def test_pair_by_pair_as_all_at_once() -> None:
    rng = np.random.default_rng(4)
    pairs = [
        pa.concat_tables([measured({"m": rng.random(30)}, seed=s, defender=d) for s in (0, 1)]) for d in ("x", "y")
    ]
    draws = Draws()
    apart = pa.concat_tables([aggregate(pair, 200, 0, draws) for pair in pairs])
    assert apart.equals(aggregate(pa.concat_tables(pairs), 200, 0))


def test_percentiles_leave_out_what_is_undefined_and_keep_what_is_infinite() -> None:
    low, high = interval(np.array([[np.nan, 3.0, 1.0, 2.0], [np.inf, 1.0, np.inf, np.inf], [np.nan] * 4]))
    assert (low[0], high[0]) == (1.0, 3.0)
    assert (low[1], high[1]) == (1.0, np.inf)
    assert math.isnan(low[2])


@dataclass(frozen=True)
class Race:
    pairs: list[tuple[str, str]]
    rounds: int


def test_the_summary_has_a_cell_per_round() -> None:
    rows = [
        measured({"sr_mask": np.ones(9), "edit_success": np.zeros(9)}, Stage(1, 0, "before", model="G")),
        measured({"sr_mask": np.zeros(9), "protection": np.ones(9)}, Stage(1, 1, "after", model="G")),
        measured({"sr_mask": np.full(9, 0.5)}, Stage(1, 2, "later", model="G")),
        measured({"protection": np.zeros(9)}, Stage(1, 1, "reference", model="none")),
        measured({"duq": np.ones(9)}, Stage(1, 1, "detection", model="retinaface")),
        measured({"duq": (np.zeros(9), np.zeros(9))}, Stage(1, 1, "detection", model="mtcnn")),
        measured({"yield": np.ones(9)}, Stage(1, 1, "preparation", model="retinaface"), photos="c"),
        decay([0.8, 0.8, 0.7, 0.7, 0.7]),
    ]
    summary = summarise(aggregate(pa.concat_tables(rows), 100, 0), Race([("d", "a"), ("d", "absent")], 2))
    assert list(summary) == ["d/a"]
    entry = summary["d/a"]
    assert entry["sr_mask_before"] == [{"value": 1.0, "low": 1.0, "high": 1.0, "n": 9}, None]
    assert entry["sr_mask_after"][0]["value"] == 0.0
    assert entry["protection"][0]["value"] == 1.0
    assert entry["yield"][0]["n"] == 9
    assert entry["duq"]["retinaface"][0]["value"] == 1.0
    assert entry["duq"]["mtcnn"][0] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "reason": "the detector finds no face on the clean photos",
    }
    assert entry["half_life"][0]["censored_above"] == 100.0
    assert entry["psnr"] == [None, None]
    assert not {"lpips", "identity_similarity"} & set(entry)


def test_the_summary_names_distances_and_what_a_networks_file_measured() -> None:
    none = np.zeros(9)
    rows = [
        measured({"kernel_net": np.ones(9), "identity_similarity": np.full(9, 0.5)}, Stage(1, 0, "before", model="G")),
        measured({"kernel_net": np.full(9, 2.0), "frechet_net": (none, none)}, Stage(1, 1, "after", model="G")),
        measured({"identity_similarity": np.full(9, 0.25)}, Stage(1, 1, "after", model="G")),
        measured({"identity_similarity": np.full(9, 0.75)}, Stage(1, 1, "reference", model="none")),
        measured({"lpips": np.full(9, 0.125)}, Stage(1, 1, "visibility")),
    ]
    entry = summarise(aggregate(pa.concat_tables(rows), 100, 0), Race([("d", "a")], 2))["d/a"]
    assert entry["kernel_net"] == [{"value": 2.0, "low": 2.0, "high": 2.0, "n": 9}, None]
    assert entry["frechet_net"][0]["value"] is None
    assert "two per feature" in entry["frechet_net"][0]["reason"]
    assert [entry[name][0]["value"] for name in ("identity_similarity", "lpips")] == [0.25, 0.125]
    assert "identity_similarity_clean" not in entry
