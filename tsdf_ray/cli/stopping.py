"""SIGINT and SIGTERM: the first asks the run to end after its step, the second leaves at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tsdf_ray.cli.group import StoppedBy
from tsdf_ray.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stoppable(ask: Callable[[], None]) -> Iterator[None]:
    """Within the block, the first SIGINT or SIGTERM calls `ask`, the second ends the process at once with its code.

    A `Stopped` that leaves the block after a signal is raised on as `StoppedBy`, which knows the exit code. Handlers
    are put back at the end. Only the command line does this: a library leaves the signals of its host alone.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            # At once: no clean-up, no waiting for threads. Finished rounds are on disk already.
            os._exit(128 + number)
        # os.write: a handler may interrupt a print in progress, whose lock it must not wait for.
        os.write(2, b"\nstopping: the running step ends, what is finished is saved (again: leave at once)\n")
        ask()

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    except Stopped as error:
        raise StoppedBy(str(error), received[0] if received else signal.SIGINT) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
