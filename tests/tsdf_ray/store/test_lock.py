"""The lock: exactly one process writes a run, a dead one's is no obstacle, and shared storage goes by the lease."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsdf_ray.errors import UserError
from tsdf_ray.store import lease
from tsdf_ray.store.lock import SIZE, take_lock


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of a moment. Forked children have them too."""
    monkeypatch.setattr(lease, "BEAT", 0.1)
    monkeypatch.setattr(lease, "LEASE", 1.0)
    monkeypatch.setattr(lease, "SETTLE", 0.1)


def forked(action: Callable[[], object]) -> int:
    """A child process that ends with 0 when `action` returned, 7 when it raised UserError."""
    pid = os.fork()
    if pid:
        return pid
    try:
        action()
    except UserError:
        os._exit(7)
    except BaseException:  # noqa: BLE001 - a forked child must end here
        os._exit(1)
    os._exit(0)


def code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def holder(root: Path, ready: Path, on_host: str | None = None) -> int:
    """A child that holds the lock until it is killed; `on_host`: it says that it runs there."""

    def hold() -> None:
        if on_host is not None:
            lease.platform.node = lambda: on_host  # type: ignore[assignment]
        lock = take_lock(root)
        ready.write_text("held")
        time.sleep(60)
        lock.close()

    pid = forked(hold)
    until = time.monotonic() + 20
    while not ready.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert ready.exists()
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert code(pid) == -signal.SIGKILL


def no_flock(monkeypatch: pytest.MonkeyPatch, granted: bool) -> None:
    """Storage without locks between machines: it says so, or grants every one."""

    def flock(file: int, how: int) -> None:
        if not granted:
            raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def content(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "lock").read_text())
    return found


def test_a_lock_is_given_back(tmp_path: Path) -> None:
    first = take_lock(tmp_path)
    assert first.note is None
    with pytest.raises(UserError, match=rf"another process \(pid {os.getpid()}\) is writing this run"):
        take_lock(tmp_path)
    first.close()
    first.close()
    with take_lock(tmp_path) as again:
        assert again.note is None


def test_the_holder_gives_signs_of_life(tmp_path: Path) -> None:
    with take_lock(tmp_path):
        time.sleep(0.5)
        found = content(tmp_path)
        assert found["beat"] >= 2
        assert (found["pid"], found.get("released")) == (os.getpid(), None)
        assert (tmp_path / "lock").stat().st_size == SIZE
    assert content(tmp_path)["released"]


@pytest.mark.parametrize("storage", ["local", "no locks"])
def test_a_killed_holder_is_followed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str) -> None:
    if storage == "no locks":
        no_flock(monkeypatch, granted=False)
    pid = holder(tmp_path, tmp_path / "ready")
    with pytest.raises(UserError, match=rf"another process \(pid {pid}\)"):
        take_lock(tmp_path)
    kill(pid)
    began = time.monotonic()
    with take_lock(tmp_path) as lock:
        assert lock.note is not None
        assert f"taken over from process {pid}" in lock.note
        assert "is gone" in lock.note
    assert time.monotonic() - began < lease.LEASE, "nobody has to wait for a lease of this machine"


@pytest.mark.parametrize("granted", [False, True], ids=["no locks", "locks within a machine"])
def test_a_holder_elsewhere_lives_while_it_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granted: bool
) -> None:
    no_flock(monkeypatch, granted)
    pid = holder(tmp_path, tmp_path / "ready", on_host="node-7")
    with pytest.raises(UserError, match=rf"another process \(pid {pid} on node-7\)"):
        take_lock(tmp_path)
    kill(pid)
    began = time.monotonic()
    with take_lock(tmp_path) as lock:
        assert lock.note is not None
        assert "on node-7, which gives no sign of life" in lock.note
    assert time.monotonic() - began >= lease.LEASE


def test_a_number_that_another_process_has_now_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_flock(monkeypatch, granted=False)
    (tmp_path / "lock").write_text(json.dumps(lease.identity() | {"start": 5.0}))
    with take_lock(tmp_path) as lock:
        assert lock.note is not None
        assert "is gone" in lock.note


@pytest.mark.parametrize("left", ["4711", "", '{"pid": 12, "ho', "\0\0\0"])
def test_what_is_no_lease_is_no_obstacle_where_the_kernel_locks(tmp_path: Path, left: str) -> None:
    (tmp_path / "lock").write_text(left)
    take_lock(tmp_path).close()


def test_who_lost_the_lease_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder that stood still for long (SIGSTOP, a mount that hung) must not write on."""
    no_flock(monkeypatch, granted=True)
    lock = take_lock(tmp_path)
    lock.check()
    (tmp_path / "lock").write_text(json.dumps(lease.identity() | {"pid": 99, "host": "node-8"}))
    with pytest.raises(UserError, match=r"another process \(pid 99 on node-8\)"):
        lock.check()
    time.sleep(0.3)
    assert content(tmp_path)["host"] == "node-8", "it does not beat over the new holder"
    lock.close()
    assert "released" not in content(tmp_path)


@pytest.mark.parametrize("storage", ["local", "no locks", "locks within a machine"])
def test_of_many_at_once_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str) -> None:
    if storage != "local":
        no_flock(monkeypatch, granted=storage != "no locks")
    # Left by a node that died: with locks that hold within a machine alone, nothing else says that storage is shared.
    gone = lease.identity() | {"host": "node-9", "released": storage == "local"}
    (tmp_path / "lock").write_text(json.dumps(gone))
    start = tmp_path / "start"

    def contend() -> None:
        while not start.exists():
            time.sleep(0.001)
        lock = take_lock(tmp_path)
        time.sleep(2.5)
        lock.check()
        lock.close()

    pids = [forked(contend) for _ in range(4)]
    start.write_text("")
    assert sorted(code(pid) for pid in pids) == [0, 7, 7, 7]
