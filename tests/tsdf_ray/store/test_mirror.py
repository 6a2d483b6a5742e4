"""Files under a URI: whole, with a few tries, in a bucket as in a mounted folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from bucket import Bucket
from pyarrow import fs

from tsdf_ray import storage, tries
from tsdf_ray.errors import NotStored, UserError
from tsdf_ray.files import is_uri
from tsdf_ray.store.mirror import Mirror
from tsdf_ray.tries import TRIES


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tries, "PAUSE", 0.001)
    monkeypatch.setenv("TSDF_RAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    """What s3:// URIs lead to."""
    made = Bucket(tmp_path / "objects")
    made.root.mkdir()
    monkeypatch.setattr(storage, "OBJECT_STORES", {"py::bucket"})
    monkeypatch.setattr(storage, "open_uri", lambda uri: (fs.PyFileSystem(made), uri.partition("://")[2]))
    return made


@pytest.fixture(params=["bucket", "folder"])
def mirror(request: pytest.FixtureRequest, tmp_path: Path) -> Mirror:
    if request.param == "folder":
        return Mirror(f"file://{tmp_path}/there")
    request.getfixturevalue("bucket")
    return Mirror("s3://photos/runs/one")


@pytest.mark.parametrize(
    ("place", "yes"),
    [("s3://a/b", True), ("gs://a", True), ("file:///a", True), ("runs/a", False), ("/a/b", False), ("C:/a", False)],
)
def test_what_is_a_uri(place: str, yes: bool) -> None:
    assert is_uri(place) is yes
    assert is_uri(Path("s3://a/b")) is False, "a path has lost a slash already"


def test_files_go_there_and_back(mirror: Mirror, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"weights" * 1000)
    mirror.put(source, "checkpoints/a/round-001.safetensors")
    mirror.write("lines/00000000.jsonl", b"{}\n")
    mirror.write("lines/00000000.jsonl", b"{1}\n")
    assert mirror.names() == ["checkpoints/a/round-001.safetensors", "lines/00000000.jsonl"]
    assert mirror.names("lines") == ["lines/00000000.jsonl"]
    assert mirror.names("nothing") == []
    assert mirror.read("lines/00000000.jsonl") == b"{1}\n"
    assert mirror.get("checkpoints/a/round-001.safetensors", tmp_path / "deep" / "back")
    assert (tmp_path / "deep" / "back").read_bytes() == source.read_bytes()
    mirror.delete("lines/00000000.jsonl")
    mirror.delete("lines/00000000.jsonl")
    assert mirror.names("lines") == []


def test_what_is_missing_is_said_and_not_tried_again(mirror: Mirror, tmp_path: Path) -> None:
    assert mirror.read("run.json") is None
    assert mirror.get("run.json", tmp_path / "target") is False
    assert not list(tmp_path.glob("*target*"))


def test_a_failure_that_passes_is_not_felt(bucket: Bucket, tmp_path: Path) -> None:
    mirror = Mirror("s3://photos/one")
    bucket.failing["run.json"] = TRIES - 1
    mirror.write("run.json", b"{}")
    assert mirror.read("run.json") == b"{}"
    assert [call for call, path in bucket.calls if path.endswith("run.json")] == ["write"] * TRIES + ["read"]


def test_whoever_has_no_time_tries_less_often(bucket: Bucket) -> None:
    bucket.failing["lock"] = 9
    with pytest.raises(NotStored, match="3 times"):
        Mirror("s3://photos/one").write("lock", b"{}", 3)


def test_what_a_killed_process_left_is_swept_but_not_the_lease(tmp_path: Path) -> None:
    mirror = Mirror(f"file://{tmp_path}/there")
    for name in ("checkpoints/m/.round-001.ab.part", ".lock.ab.part", "a.part", "checkpoints/m/round-001"):
        mirror.write(name, b"x")
    mirror.sweep()
    assert mirror.names() == [".lock.ab.part", "a.part", "checkpoints/m/round-001"]


def test_one_that_stays_names_place_and_remedy(bucket: Bucket, tmp_path: Path) -> None:
    mirror = Mirror("s3://key:secret@photos/one?region=eu")
    bucket.failing["run.json"] = TRIES
    with pytest.raises(NotStored) as caught:
        mirror.put(Path(__file__), "run.json")
    said = str(caught.value)
    assert "s3://photos/one/run.json: cannot be written (AWS Error NETWORK_CONNECTION" in said
    assert "secret" not in said
    assert str(mirror.cache) in said
    assert "tsdf-ray resume s3://photos/one" in said


def test_a_write_that_fails_leaves_nothing_half_written(tmp_path: Path) -> None:
    mirror = Mirror(f"file://{tmp_path}/there")
    mirror.write("a/x/y", b"in the way: x is a folder")
    with pytest.raises(NotStored, match=r"a/x: cannot be written"):
        mirror.put(Path(__file__), "a/x")
    assert mirror.names() == ["a/x/y"]


@pytest.mark.parametrize("uri", ["nowhere://a/b", "file://host/a", "abfs://a/b"])
def test_a_uri_nobody_knows_is_a_mistake(uri: str) -> None:
    with pytest.raises(UserError, match=r"cannot be used .*give a path, or a URI"):
        Mirror(uri)


def test_a_uri_without_a_folder_is_a_mistake(bucket: Bucket) -> None:
    with pytest.raises(UserError, match="names no folder"):
        Mirror("s3://")


def test_every_uri_has_a_folder_of_its_own(bucket: Bucket) -> None:
    uris = ["s3://a/run", "s3://b/run", "s3://a/run?endpoint_override=c", "s3://a/run/"]
    folders = [Mirror(uri).cache for uri in uris]
    assert folders[0] == folders[3]
    assert len(set(folders)) == 3
    assert Mirror("s3://k:s@a/run").cache.name.startswith("run-")
