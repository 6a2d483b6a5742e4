"""The lock of a run directory: the operating system's, and a lease beside it for storage that machines share.

On one machine the kernel's lock decides, and drops with its holder. Over NFS and the like it may be absent, or be
granted on two nodes at once: there the lease in the same file decides (lease.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType

from tsdf_ray.store.atomic import room_for
from tsdf_ray.store.lease import Lease

SIZE = 512
"""Bytes of the lock file: always written whole and alike long, so that a full disk does not stop the beat."""
_ABSENT = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class RunLock:
    """Held from its making until `close`. `note` says in words from whom it was taken over, None when it was free."""

    def __init__(self, root: Path) -> None:
        """Hold `root`. Raises TakenOver while another process does, and OSError when it cannot be written."""
        self._path = root / "lock"
        self._lease = Lease(str(root), self._read, self._write)
        with room_for(self._path):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self.note = self._lease.take(self._lock())
            except BaseException:
                os.close(self._file)
                raise

    def _lock(self) -> bool:
        """The kernel's lock; False where the storage has none. Raises TakenOver when another process has it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise self._lease.held() from error
        return True

    def _read(self) -> str | None:
        # Opened anew: only then do network file systems show what another node wrote.
        try:
            return self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def _write(self, text: str) -> None:
        data = text.encode().ljust(SIZE - 1) + b"\n"
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))
        os.fsync(self._file)

    def check(self) -> None:
        """Raises TakenOver when another process took the lock over while this one gave no sign of life."""
        self._lease.check()

    def close(self) -> None:
        """Give it back; twice does no harm."""
        if self._file >= 0:
            self._lease.release()
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def take_lock(root: Path) -> RunLock:
    """Hold `root` until the lock returned is closed. Raises TakenOver while another process holds it."""
    return RunLock(root)
