"""A round exists when its manifest line does: torn lines vanish, gaps stop the count, damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsdf_ray.digest import file_digest
from tsdf_ray.errors import UserError
from tsdf_ray.store.manifest import Entry, Manifest, check_files


def entry(match: str, round: int, files: dict[str, str] | None = None) -> Entry:
    return Entry(match, 0, "found", "mtcnn", round, files or {}, {"w": "0"}, 3, 10, None)


def test_appended_rounds_are_read_back(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "manifest.jsonl")
    manifest.append(entry("a", 1))
    manifest.append(entry("b", 1))
    manifest.append(entry("a", 2))
    again = Manifest(tmp_path / "manifest.jsonl")
    assert again.entries == manifest.entries
    assert [e.round for e in again.of("a")] == [1, 2]


@pytest.mark.parametrize("keep", [1, 20, -1])
def test_a_torn_last_line_is_no_round(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "manifest.jsonl"
    manifest = Manifest(path)
    manifest.append(entry("a", 1))
    whole = path.read_bytes()
    manifest.append(entry("a", 2))
    second = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + second[:keep])

    torn = Manifest(path)
    assert [e.round for e in torn.of("a")] == [1]
    torn.repair()
    assert path.read_bytes() == whole
    torn.append(entry("a", 2))
    assert [e.round for e in Manifest(path).of("a")] == [1, 2]


def test_rounds_after_a_gap_do_not_count(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "manifest.jsonl")
    for round in (1, 3):
        manifest.append(entry("a", round))
    assert [e.round for e in manifest.of("a")] == [1]


def test_damage_inside_is_named(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"match": 1}\n')
    with pytest.raises(UserError, match=r"manifest\.jsonl: line 1"):
        Manifest(path)


def test_files_are_compared_with_their_digests(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "x"
    file.write_bytes(b"weights")
    listed = entry("a", 1, {"checkpoints/x": file_digest(file), "parts/y": "unchecked"})
    check_files(tmp_path, listed, "checkpoints/")
    file.write_bytes(b"Weights")
    with pytest.raises(UserError, match="differs"):
        check_files(tmp_path, listed, "checkpoints/")
    file.unlink()
    with pytest.raises(UserError, match="missing"):
        check_files(tmp_path, listed, "checkpoints/")
