"""Collections on object storage, by a small server that speaks S3."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_s3 import Store, fake_s3

from actors.collections import protect, readings
from actors.collections.collection import Collection
from actors.collections.places import Reader, files_below, opened, place_of
from actors.collections.sources import open_source
from tsdf_ray import tries
from tsdf_ray.errors import UserError
from tsdf_ray.faces.sample import SAMPLE


@pytest.fixture
def store() -> Iterator[Store]:
    with fake_s3() as served:
        yield served


def test_files_and_lists(store: Store) -> None:
    place = place_of(store.uri("bucket/photos"))
    assert place.child("none").info().type.name == "NotFound"
    with pytest.raises(FileNotFoundError):
        place.child("none").read()
    place.child("a/x.bin").write(b"1" * 1000)
    place.child("large.bin").write(bytes(11 << 20))
    place.child("_hidden").write(b"2")
    assert [(name, info.size) for name, info in files_below(place)] == [("a/x.bin", 1000), ("large.bin", 11 << 20)]
    assert [name for name, _ in files_below(place, recursive=False)] == ["large.bin"]
    assert place.child("a/x.bin").read() == b"1" * 1000
    assert store.puts == ["bucket/photos/a/x.bin", "bucket/photos/large.bin", "bucket/photos/_hidden"]


def test_storage_that_refuses_is_named_without_its_password(store: Store) -> None:
    store.refuses = True
    uri = store.uri("bucket/photos")
    with pytest.raises(UserError, match="s3://bucket/photos: the storage refused") as caught:
        Collection(uri).claim({"a": 1})
    assert "password" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be used") as caught:
        place_of("s3://us er:password@bucket/photos")
    assert "password" not in str(caught.value)


def test_storage_that_fails_twice_is_not_felt(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a job asks of it: beginning, a part, going on, the source's list and its photos."""
    monkeypatch.setattr(tries, "PAUSE", 0.001)
    out, rows = Collection(store.uri("bucket/out")), pa.table({"id": ["a", "b"], "image": [b"1", b"2"]})
    for step in (
        lambda: out.claim({"job": "a"}),
        lambda: out.write(7, rows),
        lambda: out.claim({"job": "a"}),
        lambda: pytest.fail("the part is lost") if out.finished() != {7} else None,
        lambda: pytest.fail("other rows") if not next(out.read(["id"])).equals(rows.select(["id"])) else None,
        lambda: open_source(store.uri("bucket/out/part-000007.parquet"), 2, frozenset()),
    ):
        store.failing = 2
        step()
        assert store.failing == 0
    store.objects["bucket/photos/a.png"] = b"a photo"
    (reading,) = open_source(store.uri("bucket/photos"), 2, frozenset()).readings
    store.failing = 2
    ((_, photos),) = reading.read(frozenset({0}))
    assert photos["image"].to_pylist() == [b"a photo"]


def test_a_photo_that_is_too_large_is_not_fetched(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "LARGEST", 10)
    store.objects |= {"bucket/photos/a.png": bytes(11), "bucket/photos/b.png": bytes(10)}
    (reading,) = open_source(store.uri("bucket/photos"), 2, frozenset()).readings
    del store.objects["bucket/photos/b.png"]
    ((_, photos),) = reading.read(frozenset({0}))
    assert photos["problem"].to_pylist() == ["0 MiB, more than 0 MiB", "file is missing"]
    assert photos["image"].null_count == 2


def test_parquet_goes_on_where_storage_failed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "PAUSE", 0.001)
    out = Collection(store.uri("bucket/out"))
    rows = pa.table({"id": [f"{n:03}" for n in range(500)], "image": pa.array([bytes(9000)] * 500, pa.large_binary())})
    out.write(0, rows)
    with opened(out.part(0)) as parquet:
        found = []
        for batch in parquet.iter_batches(100):
            found += batch["id"].to_pylist()
            store.failing = 2
    assert found == rows["id"].to_pylist()
    store.failing = 0
    store.objects["bucket/out/part-000000.parquet"] = b"PAR1 and then something else PAR1"
    with pytest.raises(UserError, match=r"s3://bucket/out/part-000000.parquet: not a readable Parquet file \("):
        out.columns()
    store.failing = 5
    with pytest.raises(UserError, match=r"out: the storage refused .*OutOfOrder.*, 5 times; check the place"):
        out.finished()


def test_parquet_that_cannot_be_read_tells_no_secret(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "PAUSE", 0.001)
    uri = store.uri("bucket/a.parquet")
    place = place_of(uri)
    for error in (OSError(f"cannot open {uri} as user:password"), pa.ArrowInvalid(f"{uri}: no such footer, password")):
        for name in ("_opened", "__init__"):

            def fail(self: Reader, *args: object, error: Exception = error) -> None:
                raise error

            with monkeypatch.context() as patch:
                patch.setattr(Reader, name, fail)
                with pytest.raises(UserError, match=r"s3://bucket/a\.parquet: ") as caught, opened(place):
                    pass
            assert "password" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_from_and_to_object_storage(store: Store, tmp_path: Path) -> None:
    rows = pq.ParquetFile(SAMPLE).read_row_group(0, columns=["id", "image"]).slice(0, 5)
    pq.write_table(rows, tmp_path / "in.parquet")
    store.objects["bucket/in/a.parquet"] = (tmp_path / "in.parquet").read_bytes()
    source, out = store.uri("bucket/in"), store.uri("bucket/out")
    result = protect(source, out, defender="noise", faces="whole", part=2, workers=1)
    assert result.progress.computed == 3
    assert result.out == "s3://bucket/out"
    assert "password" not in store.objects["bucket/out/_collection.json"].decode()
    protect(str(tmp_path / "in.parquet"), str(tmp_path / "out"), defender="noise", faces="whole", part=2, workers=1)
    for path in (tmp_path / "out").glob("part-*.parquet"):
        there = pq.read_table(io.BytesIO(store.objects[f"bucket/out/{path.name}"]))
        assert there.equals(pq.read_table(path))
    puts = len(store.puts)
    assert protect(source, out, defender="noise", faces="whole", part=2, workers=1).progress.computed == 0
    assert len(store.puts) == puts
