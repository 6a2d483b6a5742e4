"""Sources of collections: every photo in exactly one part, in order, whatever the files look like; places and parts."""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.collections import sources
from actors.collections.collection import RECORD, Collection
from actors.collections.measure import summarise
from actors.collections.places import opened, place_of
from actors.collections.readings import LARGEST
from actors.collections.sources import open_source
from tsdf_ray import storage
from tsdf_ray.collections import is_collection
from tsdf_ray.errors import UserError
from tsdf_ray.faces.decode import MAX_BYTES
from tsdf_ray.metrics.rows import Stage, make_rows

NONE: frozenset[str] = frozenset({"id", "image"})


def write(path: Path, names: list[str], group: int = 1000, size: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(names))
    table = pa.table(
        {"id": names, "image": [rng.bytes(size) for _ in names], "Male": [k % 2 for k in range(len(names))]}
    )
    pq.write_table(table, path, row_group_size=group, compression="none")
    return path


def read(source: sources.Source, wanted: frozenset[int]) -> dict[int, list[str]]:
    return {part: rows["id"].to_pylist() for reading in source.readings for part, rows in reading.read(wanted)}


@settings(max_examples=40)
@given(
    files=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    group=st.integers(1, 50),
    part=st.integers(1, 25),
    skip=st.sets(st.integers(0, 30)),
)
def test_parquet_is_cut_into_parts_in_order(files: list[int], group: int, part: int, skip: set[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = [[f"{number}-{k}" for k in range(count)] for number, count in enumerate(files)]
        for number, ids in enumerate(names):
            write(Path(folder) / f"f{number}.parquet", ids, group)
        source = open_source(folder, part, NONE)
        assert list(source.counts) == list(range(len(source.counts)))
        assert all(0 < count <= part for count in source.counts.values())
        found = read(source, frozenset(source.counts))
        assert list(itertools.chain(*found.values())) == list(itertools.chain(*names))
        assert {number: len(ids) for number, ids in found.items()} == source.counts
        some = frozenset(source.counts) - skip
        assert read(source, some) == {number: found[number] for number in some}


def test_parts_are_bounded_in_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PART_BYTES", 5_000)
    large = write(tmp_path / "large.parquet", [str(k) for k in range(40)], size=1_000)
    counts = open_source(str(large), 256, NONE).counts.values()
    assert sum(counts) == 40
    assert max(counts) <= 5
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(6):
        (photos / f"{k}.jpg").write_bytes(bytes(2_000))
    assert list(open_source(str(photos), 256, NONE).counts.values()) == [3, 3]


def test_labels_and_structs(tmp_path: Path) -> None:
    image = [{"bytes": b"one", "path": "x"}, {"bytes": None, "path": "y"}]
    pq.write_table(pa.table({"Male": [1, 0], "image": image, "width": [5, 6], "id": [7, 8]}), tmp_path / "a.parquet")
    source = open_source(str(tmp_path), 9, NONE | {"width"})
    ((_, rows),) = source.readings[0].read(frozenset({0}))
    assert rows.to_pylist() == [
        {"id": "7", "image": b"one", "problem": None, "Male": 1},
        {"id": "8", "image": None, "problem": "the column 'image' holds no bytes here", "Male": 0},
    ]
    assert source.labels.names == ["Male"]


def test_a_folder_is_listed_as_the_plain_command_does(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.JPG", ".hidden/d.png", "a/.e.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    source = open_source(f"file://{tmp_path}", 10, NONE)
    assert read(source, frozenset({0})) == {0: ["a/c.JPG", "b.png"]}
    (tmp_path / "b.png").unlink()
    ((_, rows),) = source.readings[0].read(frozenset({0}))
    assert rows["problem"].to_pylist() == [None, "file is missing"], "a photo that vanishes is a row, not the end"
    assert LARGEST == MAX_BYTES


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({}, "holds neither photos"),
        ({"a.png": b"x", "t.parquet": None}, "both photos"),
        ({"t.parquet": b"no parquet"}, "not a readable Parquet file"),
        ({"t.parquet": None, "u.parquet": pa.table({"id": ["a"], "image": [b""]})}, "other columns"),
        ({"t.parquet": pa.table({"name": ["a"], "image": [b""]})}, "no column 'id'; it has: name, image"),
        (
            {"t.parquet": pa.table({"id": ["a"], "image": [7]})},
            "'image' is int64; ids are text or numbers, images bytes",
        ),
        ({"t.parquet": pa.table({"id": ["a"], "image": [[0.5]]})}, "'image' is list<element: double>"),
        ({"t.parquet": pa.table({"id": ["a"], "image": [{"path": "a"}]})}, "'image' is struct<path: string>"),
        ({"t.parquet": pa.table({"id": [["a"]], "image": [b""]})}, "'id' is list<element: string>"),
    ],
)
def test_sources_that_cannot_be_used(tmp_path: Path, made: dict[str, bytes | pa.Table | None], message: str) -> None:
    for name, content in made.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif content is None:
            write(tmp_path / name, ["a"])
        else:
            pq.write_table(content, tmp_path / name)
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path), 5, NONE)
    with pytest.raises(UserError, match="is not there"):
        open_source(str(tmp_path / "nowhere"), 5, NONE)


def test_places() -> None:
    with pytest.raises(UserError, match="ftp://host/x: cannot be used"):
        place_of("ftp://host/x")
    place = place_of("s3://someone:secret@bucket/photos/?region=eu-west-1&scheme=http")
    assert (place.name, place.path) == ("s3://bucket/photos", "bucket/photos")
    assert "secret" not in place.child("x").name
    assert is_collection("s3://b/x", "out")
    assert is_collection("in", "out.parquet")
    assert not is_collection("in", "out")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_of(str(tmp_path)).child("below/part-000000.parquet")
    place.write(b"first")
    assert place.read() == b"first"

    def fail(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "_flush", fail)
    with pytest.raises(UserError, match="No space left"):
        place.write(b"second")
    assert place.read() == b"first"
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["part-000000.parquet"]


def test_what_a_killed_process_left_goes_after_a_while(tmp_path: Path) -> None:
    Collection(str(tmp_path)).claim({"job": "a"})
    for name in (".part-000001.parquet.ab.part", "._defence.safetensors.ab.part", "part-000001.parquet", ".mine"):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".part-000002.parquet.ab.part").write_bytes(b"another writes it now")
    Collection(str(tmp_path)).claim({"job": "a"})
    left = {".mine", "_collection.json", "part-000001.parquet", ".part-000002.parquet.ab.part"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_the_record_of_a_collection(tmp_path: Path) -> None:
    out = Collection(str(tmp_path / "out"))
    out.claim({"job": "a", "part": 3})
    out.claim({"job": "a", "part": 3})
    with pytest.raises(UserError, match="part: 3 then, 4 now; x: null then, 1 now"):
        out.claim({"job": "a", "part": 4, "x": 1})
    assert out.finished() == frozenset()
    photo = pa.table({"id": ["a"], "image": pa.array([b"x" * 500], pa.large_binary()), "psnr": [1.0]})
    out.write(4, photo)
    (tmp_path / "out" / ".part-000005.parquet.ab.part").write_bytes(b"half")
    assert out.finished() == frozenset({4})
    assert next(out.read(["psnr", "id"])).to_pydict() == {"psnr": [1.0], "id": ["a"]}
    with opened(out.part(4)) as file:
        group = file.metadata.row_group(0)
        codecs = {group.column(k).path_in_schema: group.column(k).compression for k in range(3)}
    assert codecs == {"id": "ZSTD", "image": "UNCOMPRESSED", "psnr": "ZSTD"}
    (tmp_path / "out" / RECORD).write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        out.claim({})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="holds files and no"):
        Collection(str(tmp_path / "other")).claim({})
    with pytest.raises(UserError, match="is a file"):
        Collection(str(tmp_path / "other" / "mine.txt")).claim({})


def test_the_summary_is_exact_and_its_interval_covers() -> None:
    """Against the normal interval of a mean; parts of unequal size, a photo without weight."""
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 1.0, 900)
    weights = np.ones(900)
    weights[5] = 0.0
    tables = []
    for piece in np.array_split(np.arange(900), 7):
        names = [str(k) for k in piece]
        measures = {"m": (values[piece] * weights[piece], weights[piece]), "none": (np.zeros(len(piece)),) * 2}
        tables.append(make_rows(Stage(1, 1, "visibility"), names, measures))
    none, found = sorted(summarise(iter(tables)), key=lambda row: row["metric"] == "m")
    kept = values[weights > 0]
    assert found["value"] == pytest.approx(kept.mean())
    assert found["n"] == 899
    half = 1.96 * kept.std() / np.sqrt(len(kept))
    assert found["low"] == pytest.approx(kept.mean() - half, abs=half * 0.2)
    assert found["high"] == pytest.approx(kept.mean() + half, abs=half * 0.2)
    assert (none["value"], none["low"], none["n"]) == (None, None, 0)
