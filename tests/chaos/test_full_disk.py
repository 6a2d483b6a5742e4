"""No room for a checkpoint: one error that names the folder, nothing half written; `resume` goes on to equal tables.

The exit code is 2: what was given, a folder with too little room, is to be mended, and no match has failed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_commands import assert_equal, ended, half_written, play, resume, resume_here, status

from tsdf_ray.store.manifest import Manifest, round_file

MATCH = "tsdf-vs-mtcnn-s0"


def check_refused(code: int, said: str, root: Path, words: str) -> None:
    assert code == 2, said
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert last.startswith(f"error: {root}/checkpoints/{MATCH}: round-002.safetensors cannot be written ({words})")
    assert "make room there, then go on" in last
    assert half_written(root) == []
    assert [entry.round for entry in Manifest(root / "manifest.jsonl").of(MATCH)] == [1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_limit_on_the_size_of_files(whole: Path, tmp_path: Path) -> None:
    """RLIMIT_FSIZE: the second checkpoint, which carries more photos, is a little too large."""
    sizes = [(whole / round_file("checkpoints", MATCH, r)).stat().st_size for r in (1, 2)]
    limit = sum(sizes) // 2
    root = tmp_path / "run"
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    check_refused(*ended(play(root, before=before)), root, "File too large")
    assert status(root) == "stopped"
    resume_here(root)
    assert_equal(root, whole)


@pytest.fixture
def small_disk(tmp_path: Path, whole: Path) -> Iterator[Path]:
    """A tmpfs with room for one checkpoint and a half."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = int(1.5 * (whole / round_file("checkpoints", MATCH, 1)).stat().st_size)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"this user may not mount a tmpfs: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_disk_that_is_full(whole: Path, small_disk: Path) -> None:
    root = small_disk / "run"
    check_refused(*ended(play(root)), root, "No space left on device")
    again = ended(resume(root))
    check_refused(*again, root, "No space left on device")
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    resume_here(root)
    assert_equal(root, whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_room_at_the_end_loses_no_round(whole: Path, tmp_path: Path) -> None:
    """Tables and report do not fit: all rounds are kept, and `resume` plays none again."""
    root = tmp_path / "run"
    before = (
        "import errno\nfrom tsdf_ray.store import finish\n"
        "def full(*_, **__): raise OSError(errno.ENOSPC, 'full')\nfinish.pq.ParquetWriter = full"
    )
    code, said = ended(play(root, before=before))
    assert code == 2, said
    assert f"error: {root}/tables: images.parquet cannot be written" in said
    assert len(Manifest(root / "manifest.jsonl").entries) == 2
    resume_here(root)
    assert len(Manifest(root / "manifest.jsonl").entries) == 2
    assert_equal(root, whole)
