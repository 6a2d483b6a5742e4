"""Parquet, and the packaged sample, which is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tsdf_ray.errors import UserError
from tsdf_ray.faces import BadPhoto, Counts, FacesConfig, iter_faces, load_splits
from tsdf_ray.faces import sample as sample_module

Colour = Callable[[np.ndarray], tuple[int, ...]]
MakeParquet = Callable[..., Path]
COUNTS = Counts(defender=10, attacker=12, evaluation=9)


def config(path: Path, **changes: object) -> FacesConfig:
    return FacesConfig(**({"source": "parquet", "path": path, "size": 32, "counts": COUNTS} | changes))


def check(config: FacesConfig, colour_of: Colour) -> None:
    splits = load_splits(config, 2)
    for part, photos in enumerate((splits.defender, splits.attacker, splits.evaluation)):
        for b, name in enumerate(photos.ids):
            k = int(name[1:])
            assert k % 3 == part
            assert colour_of(photos.pixels_BCHW[b]) == (k % 251, (7 * k + 3) % 251, 40 + k // 251)
            k *= 7
            assert tuple(photos.labels_BA[b]) == (k % 3 == 0, k % 3 == 1, k % 3 == 2, k % 5 < 2)


def test_photos_labels_and_splits_belong_together(make_parquet: MakeParquet, colour_of: Colour) -> None:
    check(config(make_parquet()), colour_of)


def test_several_files_are_one_source(make_parquet: MakeParquet, colour_of: Colour) -> None:
    make_parquet(33, "many/a.parquet")
    path = make_parquet(30, "many/b.parquet", first=33)
    check(config(path.parent), colour_of)
    assert [f.id for f in iter_faces(config(path.parent))] == [f"f{k:04d}" for k in range(63)]


def test_the_sample_is_read_by_its_own_splits(
    make_parquet: MakeParquet, colour_of: Colour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_module, "SAMPLE", make_parquet())
    check(FacesConfig(size=32, counts=COUNTS), colour_of)


def test_a_missing_sample_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_module, "SAMPLE", tmp_path / "gone.parquet")
    with pytest.raises(UserError, match="packaged sample is missing; install tsdf-ray again"):
        load_splits(FacesConfig(), 0)


def test_without_a_split_column_photos_are_divided(make_parquet: MakeParquet) -> None:
    splits = load_splits(config(make_parquet(31, split=None)), 0)
    ids = splits.defender.ids + splits.attacker.ids + splits.evaluation.ids
    assert len(set(ids)) == 31  # all there are, each once
    identity = [k // 4 for k in range(60)]
    splits = load_splits(config(make_parquet(60, split=None, identity=identity)), 0)
    people = [{int(i[1:]) // 4 for i in s.ids} for s in (splits.defender, splits.attacker, splits.evaluation)]
    assert not (people[0] & people[1])
    assert not (people[0] & people[2])
    assert not (people[1] & people[2])


def test_images_as_hugging_face_stores_them(make_parquet: MakeParquet, colour_of: Colour) -> None:
    images = pq.read_table(make_parquet()).column("image").to_pylist()
    check(config(make_parquet(image=[{"bytes": b, "path": None} for b in images])), colour_of)


def test_only_row_groups_with_chosen_photos_are_read(
    make_parquet: MakeParquet, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_parquet()
    read: list[int] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: pq.ParquetFile, *args: object, **kwargs: object) -> object:
        read.extend(kwargs["row_groups"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    splits = load_splits(config(path, counts=Counts(defender=1, attacker=1, evaluation=1)), 0)
    chosen = {int(s.ids[0][1:]) // 7 for s in (splits.defender, splits.attacker, splits.evaluation)}
    assert set(read) == chosen
    assert len(read) < 9


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [f"f{k % 59}" for k in range(60)]}, r"row 59: id 'f0' is there twice"),
        ({"id": [None, *map(str, range(59))]}, r"row 0: no id"),
        (
            {"split": ["train"] * 1 + ["defender", "attacker", "evaluation"] * 19 + ["attacker"] * 2},
            r"row 0: split 'train'",
        ),
        ({"Male": [2, *[1] * 59]}, r"row 0: Male is 2, expected 0 or 1"),
        ({"Male": [None, *[1] * 59]}, r"row 0: Male is None"),
    ],
)
def test_bad_rows_stop_or_are_skipped(make_parquet: MakeParquet, columns: dict[str, object], message: str) -> None:
    path = make_parquet(**columns)
    with pytest.raises(BadPhoto, match=message):
        load_splits(config(path), 0)
    splits = load_splits(config(path, on_bad="skip"), 0)
    assert len(splits.skipped) == 1
    assert message.split(":", maxsplit=1)[0].replace("\\", "") in splits.skipped[0]


def test_bad_images_stop_or_are_replaced(make_parquet: MakeParquet) -> None:
    images = pq.read_table(make_parquet()).column("image").to_pylist()
    images[::6] = [None, b"", *[b"<html>"] * 8]
    path = make_parquet(image=images)
    with pytest.raises(BadPhoto):
        list(iter_faces(config(path)))
    assert len(list(iter_faces(config(path, on_bad="skip")))) == 50
    splits = load_splits(config(path, on_bad="skip"), 0)
    assert not {f"f{k:04d}" for k in range(0, 60, 6)} & set(splits.defender.ids)
    assert splits.skipped


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": None}, "no column 'id'; it has"),
        ({"image": None}, "no column 'image'"),
        ({"Male": None}, "unknown attribute 'Male'; labelled there: Black_Hair"),
    ],
)
def test_missing_columns_always_stop(make_parquet: MakeParquet, columns: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_splits(config(make_parquet(**columns), on_bad="skip"), 0)


@pytest.mark.parametrize("keep", [0, 10, -100])
def test_what_is_not_parquet_is_refused(make_parquet: MakeParquet, keep: int) -> None:
    path = make_parquet()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="not a readable Parquet file"):
        load_splits(config(path), 0)


def test_no_file_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "x.parquet"):
        with pytest.raises(UserError, match="no Parquet file there"):
            load_splits(config(path), 0)
