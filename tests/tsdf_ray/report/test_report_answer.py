"""The answer in words: verdicts, paired differences, and honesty where nothing can be told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdf_ray.report.answer import (
    HOLDS,
    NOTHING,
    UNKNOWN,
    WORN,
    answer,
    listed,
    percent,
    points,
    span,
)
from tsdf_ray.report.data import Run, Value
from tsdf_ray.report.gains import Sums, paired_difference

PHOTOS = {seed: {name: place for place, name in enumerate("hgfedcba")} for seed in (0, 1, 2)}
Cells = dict[tuple[int, str], tuple[float, float]]
CELLS = st.dictionaries(
    st.tuples(st.integers(0, 2), st.sampled_from("abcdefgh")),
    st.tuples(st.integers(0, 3).map(float), st.just(3.0)),
    min_size=1,
)


def sums(cells: Cells) -> Sums:
    """(seed, photo) -> value and weight, as columns of PHOTOS."""
    found: dict[int, np.ndarray] = {}
    for (seed, photo), sum_ in cells.items():
        found.setdefault(seed, np.zeros((len(PHOTOS[seed]), 2)))[PHOTOS[seed][photo]] = sum_
    return found


def _edit_summary(root: Path, pair: str, metric: str, entry: dict[str, object]) -> None:
    path = root / "summary.json"
    summary = json.loads(path.read_text())
    summary["pairs"][pair][metric][-1] = entry
    path.write_text(json.dumps(summary))


def test_verdicts_and_headline(fake_run: Path) -> None:
    found = answer(Run.load(fake_run))
    verdicts = {pair: cell.verdict for pair, cell in found.cells.items()}
    assert verdicts["tsdf", "retinaface"] == HOLDS
    assert verdicts["tsdf", "mtcnn"] == WORN
    value = found.cells["tsdf", "retinaface"].value
    assert found.headline.startswith("After 3 rounds, <b>tsdf</b> still works against <b>retinaface</b> (")
    assert f"({percent(value.value)} of forgeries fail, 95\u00a0% interval {span(value)})" in found.headline
    assert "but is worn down by <b>mtcnn</b>" in found.headline
    assert "2 races" in found.more[-1]
    assert not any("Beware" in text for text in found.more)


def test_gain_over_no_protection_is_the_plain_difference(fake_run: Path) -> None:
    """The paired estimate, from its definition: mean protection minus that of unprotected photos of the same races."""
    frame = pq.read_table(fake_run / "tables/images.parquet").to_pandas()
    frame = frame[(frame["metric"] == "protection") & (frame["round"] == 3) & (frame["judged_round"] == 3)]
    frame = frame[(frame["defender"] == "tsdf") & (frame["attacker"] == "mtcnn")]
    own = frame[frame["phase"] == "after"]["value"].mean()
    bare = frame[(frame["phase"] == "reference") & (frame["model"] == "none")]["value"].mean()
    gain = answer(Run.load(fake_run)).cells["tsdf", "mtcnn"].gain
    assert gain.value == pytest.approx(own - bare)
    assert gain.low is not None
    assert gain.high is not None
    assert gain.low < own - bare < gain.high


def test_equal_defenders_cannot_be_told_apart(run_copy: Path) -> None:
    path = run_copy / "tables/images.parquet"
    frame = pq.read_table(path).to_pandas()
    after = (frame["metric"] == "protection") & (frame["phase"] == "after")
    frame.loc[after, "value"] = np.random.default_rng(0).integers(0, 2, int(after.sum())).astype(float)
    frame.to_parquet(path, index=False)
    comparison = next(text for text in answer(Run.load(run_copy)).more if "harms it most" in text)
    assert "cannot be told apart" in comparison
    assert "paired by photo and seed" in comparison


def test_clear_winner_differs(fake_run: Path, run_copy: Path) -> None:
    path = run_copy / "tables/images.parquet"
    frame = pq.read_table(path).to_pandas()
    after = (frame["metric"] == "protection") & (frame["phase"] == "after")
    frame.loc[after, "value"] = (frame.loc[after, "defender"] == "tsdf").astype(float)
    frame.to_parquet(path, index=False)
    comparison = next(text for text in answer(Run.load(run_copy)).more if "harms it most" in text)
    assert "differ: +100 points, +100 to +100" in comparison


def test_without_rows_per_photo_the_intervals_decide(run_copy: Path) -> None:
    (run_copy / "tables/images.parquet").unlink()
    found = answer(Run.load(run_copy))
    assert found.cells["tsdf", "retinaface"].verdict == HOLDS
    assert any("whether their intervals overlap" in text for text in found.more)


def test_no_gain_is_no_effect_however_high(run_copy: Path) -> None:
    """A generator so bad that unprotected photos fail as often protects nobody."""
    path = run_copy / "tables/images.parquet"
    frame = pq.read_table(path).to_pandas()
    frame.loc[frame["metric"] == "protection", "value"] = 1.0
    frame.to_parquet(path, index=False)
    found = answer(Run.load(run_copy))
    assert {cell.verdict for cell in found.cells.values()} == {NOTHING}
    assert found.headline.startswith("After 3 rounds, no protection shows an effect: even with <b>")


def test_holding_is_measured_against_unprotected_photos(run_copy: Path) -> None:
    """62 % failing forgeries are no success where 55 % fail without protection; the weak attacker is named."""
    path = run_copy / "tables/metrics.parquet"
    frame = pq.read_table(path).to_pandas()
    bare = (frame["phase"] == "reference") & (frame["model"] == "none") & (frame["metric"] == "protection")
    frame.loc[bare, "value"] = 0.75
    skill = (frame["phase"] == "reference") & (frame["model"] == "none") & (frame["metric"] == "edit_success")
    start = frame[skill & (frame["round"] == 1)].assign(round=0, judged_round=0, value=0.9)
    frame.loc[skill, "value"] = 0.25
    pq.write_table(pa.Table.from_pandas(pd.concat([frame, start]), preserve_index=False), path)
    found = answer(Run.load(run_copy))
    value = found.cells["tsdf", "retinaface"].value.value
    assert value is not None
    assert value < 0.75 + 0.5 * 0.25
    assert found.cells["tsdf", "retinaface"].verdict == WORN
    warning = next(text for text in found.more if text.startswith("Beware"))
    assert warning.count("from 90\u00a0% to 25\u00a0% of edits") == 4
    assert "<b>mtcnn</b> against found (from 90" in warning


def test_missing_protection_is_said_with_its_reason(run_copy: Path) -> None:
    for pair in ("found/retinaface", "found/mtcnn", "tsdf/retinaface", "tsdf/mtcnn"):
        _edit_summary(run_copy, pair, "protection", {"value": None, "reason": "judge <missing>"})
    found = answer(Run.load(run_copy))
    assert found.headline == "Nothing can be said yet: protection is not available (judge &lt;missing&gt;)."
    assert {cell.verdict for cell in found.cells.values()} == {UNKNOWN}


def test_one_seed_is_called_one_race(run_copy: Path) -> None:
    path = run_copy / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seeds": [0]}))
    assert answer(Run.load(run_copy)).more[-1] == "1 seed: the intervals cover photos of one race, not races."


@given(CELLS)
@settings(max_examples=25, deadline=None)
def test_a_defender_does_not_differ_from_itself(cells: Cells) -> None:
    difference = paired_difference(sums(cells), sums(cells), PHOTOS)
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


@given(CELLS, CELLS)
@settings(max_examples=25, deadline=None)
def test_paired_difference_turns_its_sign_with_the_order(a: Cells, b: Cells) -> None:
    there, back = paired_difference(sums(a), sums(b), PHOTOS), paired_difference(sums(b), sums(a), PHOTOS)
    if not a.keys() & b.keys():
        assert there.value is None
        return
    assert there.value == pytest.approx(-(back.value or 0.0))
    assert there.low is not None
    assert there.high is not None
    assert -1 <= there.low <= there.high <= 1


def test_seeds_widen_the_interval() -> None:
    """Two races that disagree: resampling photos alone would call the mean certain."""
    photos = {f"p{i}": i for i in range(50)}
    a = {seed: np.array([(float(seed), 1.0)] * 50) for seed in (0, 1)}
    b = {seed: np.array([(0.0, 1.0)] * 50) for seed in (0, 1)}
    difference = paired_difference(a, b, {0: photos, 1: photos})
    assert (difference.value, difference.low, difference.high) == (0.5, 0.0, 1.0)


def test_words() -> None:
    assert points(0.126) == "+13"
    assert points(-0.04) == "−4"
    assert points(-0.001) == "0"
    assert percent(None) == "–"
    assert span(Value(0.5)) == "no interval"
    assert listed([percent(1.0), "b", "c"]) == "100\u00a0%, b and c"  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("idle", "words"),
    [
        (["mtcnn"], "Without retraining: <b>mtcnn</b>."),
        (["mtcnn", "retinaface"], "No attacker retrains here: this is protection before any adaptation."),
    ],
)
def test_attackers_that_never_retrain_are_named(fake_run: Path, run_copy: Path, idle: list[str], words: str) -> None:
    assert not any("etrain" in text for text in answer(Run.load(fake_run)).more)
    path = run_copy / "scenario.yaml"
    scenario = yaml.safe_load(path.read_text())
    for name in idle:
        scenario["attackers"][name]["retrain"] = {"mode": "none"}
    path.write_text(yaml.safe_dump(scenario))
    assert words in answer(Run.load(run_copy)).more
