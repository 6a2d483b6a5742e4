"""Collections on object storage, by a small server that speaks S3."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_s3 import Store, fake_s3

from actors.collections import protect
from actors.collections.collection import Collection
from actors.collections.places import Place
from tsdf_ray.errors import UserError
from tsdf_ray.faces.sample import SAMPLE


@pytest.fixture
def store() -> Iterator[Store]:
    with fake_s3() as served:
        yield served


def test_files_and_lists(store: Store) -> None:
    place = Place.of(store.uri("bucket/photos"))
    assert place.child("none").kind().name == "NotFound"
    with pytest.raises(FileNotFoundError):
        place.child("none").read()
    place.child("a/x.bin").write(b"1" * 1000)
    place.child("large.bin").write(bytes(11 << 20))
    place.child("_hidden").write(b"2")
    assert [(name, info.size) for name, info in place.below()] == [("a/x.bin", 1000), ("large.bin", 11 << 20)]
    assert [name for name, _ in place.below(recursive=False)] == ["large.bin"]
    assert place.child("a/x.bin").read() == b"1" * 1000
    assert store.puts == ["bucket/photos/a/x.bin", "bucket/photos/large.bin", "bucket/photos/_hidden"]


def test_storage_that_refuses_is_named_without_its_password(store: Store) -> None:
    store.refuses = True
    uri = store.uri("bucket/photos")
    with pytest.raises(UserError, match="s3://bucket/photos: the storage refused") as caught:
        Collection(uri).claim({"a": 1})
    assert "password" not in str(caught.value)
    with pytest.raises(UserError, match="not a place that can be used") as caught:
        Place.of("s3://us er:password@bucket/photos")
    assert "password" not in str(caught.value)


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
