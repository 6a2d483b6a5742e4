"""Files appear whole or not at all."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tsdf_ray.store.atomic import append, whole_file, write_json, write_table, write_tensors, write_text


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.txt"
    write_text(path, "old")

    def fail() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def in_a_child_with_small_files(action: Callable[[], object]) -> str:
    """What `action` raises in a process whose files may have 64 KB."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - a forked child must end here
            os.write(write, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as pipe:
        return pipe.read()


NOISE = np.random.default_rng(0).random(100_000)
WRITES: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text(path, "x" * 100_000),
    "json": lambda path: write_json(path, NOISE.tolist()),
    "table": lambda path: write_table(path, pa.table({"noise": NOISE})),
    "tensors": lambda path: write_tensors(path, {"noise": NOISE}),
    "append": lambda path: append(path, "x" * 100_000 + "\n"),
}


@pytest.mark.parametrize("kind", WRITES)
def test_no_room_is_one_error_and_changes_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "folder" / "file"
    write_text(path, "old\n")
    said = in_a_child_with_small_files(lambda: WRITES[kind](path))
    assert said.startswith(f"NotStored: {path.parent}: file cannot be written (File too large); make room there")
    assert path.read_text() == "old\n"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        append(tmp_path / "file" / "below", "x")
