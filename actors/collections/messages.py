"""What travels between the tasks and actors of a job: a part as one row. No torch: reading and writing need none.

A row holds a whole part as an Arrow message, so nothing that is done to blocks on the way can split or merge parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from actors.collections.collection import Collection
from actors.collections.readings import Reading
from tsdf_ray.errors import MatchFailed, UserError

MESSAGE = pa.schema(
    [("part", pa.int64()), ("rows", pa.large_binary()), ("failed", pa.string()), ("error", pa.string())]
)
"""What travels: a part's number and rows, or the kind of a named error and its message."""

Work = Callable[[pa.Table], pa.Table]
"""What is done to the rows of a part."""


@dataclass(frozen=True)
class Read:
    """A read task."""

    reading: Reading
    wanted: frozenset[int]

    def __call__(self) -> Iterator[pa.Table]:
        part = self.reading.first
        try:
            for part, rows in self.reading.read(self.wanted):
                yield _message(part, rows)
        except UserError as error:
            yield _failure(part, error)


class Actor:
    """Holds a worker; Ray Data calls it with one message at a time."""

    def __init__(self, worker: Callable[..., Work], arguments: ray.ObjectRef[Any]) -> None:
        import torch

        torch.set_num_threads(1)
        self._broken: UserError | MatchFailed | None = None
        try:
            self._worker = worker(*ray.get(arguments))
        except (UserError, MatchFailed) as error:
            # Raised from here, Ray would show it as a bug of its own, traceback and all.
            self._broken = error

    def __call__(self, message: pa.Table) -> pa.Table:
        part, rows = _opened(message)
        if rows is None:
            return message
        if self._broken is not None:
            return _failure(part, self._broken)
        try:
            return _message(part, self._worker(rows))
        except (UserError, MatchFailed) as error:
            return _failure(part, error)


def write(message: pa.Table, out: Collection) -> pa.Table:
    """The part, whole; its number goes on."""
    part, rows = _opened(message)
    if rows is None:
        return message
    try:
        out.write(part, rows)
    except UserError as error:
        return _failure(part, error)
    return _table(part, None, None, None)


def _message(part: int, rows: pa.Table) -> pa.Table:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return _table(part, sink.getvalue(), None, None)


def _failure(part: int, error: Exception) -> pa.Table:
    return _table(part, None, type(error).__name__ if isinstance(error, MatchFailed) else "UserError", str(error))


def _table(part: int, rows: pa.Buffer | None, failed: str | None, error: str | None) -> pa.Table:
    # From the buffer itself: a Python bytes would be one more copy of the photos.
    if rows is None:
        cell = pa.nulls(1, pa.large_binary())
    else:
        ends = pa.py_buffer((0).to_bytes(8, "little") + rows.size.to_bytes(8, "little"))
        cell = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, rows])
    return pa.table([pa.array([part]), cell, pa.array([failed], pa.string()), pa.array([error], pa.string())], MESSAGE)


def _opened(message: pa.Table) -> tuple[int, pa.Table | None]:
    """The part's number and rows, without a copy; no rows where something failed before."""
    rows = message["rows"][0]
    return message["part"][0].as_py(), pa.ipc.open_stream(rows.as_buffer()).read_all() if rows.is_valid else None
