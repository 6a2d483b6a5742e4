"""Where a job stands, for whoever waits for it: one live line on a terminal, lines of text elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, TextIO

from rich.console import Console
from rich.status import Status
from rich.text import Text

from tsdf_ray.cli.progress import short
from tsdf_ray.jobs import Job, progress_in


class JobProgress(Protocol):
    """What shows a job."""

    def __enter__(self) -> JobProgress: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, job: Job, log: str) -> None: ...
    def quiet(self, seconds: float) -> None: ...


class PlainJob:
    """Every line of progress of the job's own, and changes of its state: for logs and pipes."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._state, self._said, self._silent = "", 0, False

    def __enter__(self) -> PlainJob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to take down."""

    def show(self, job: Job, log: str) -> None:
        """Say what is new."""
        self._silent = False
        lines = progress_in(log)
        for line in lines[self._said :]:
            self._say(line)
        self._said = len(lines)
        if job.state != self._state:
            self._state = job.state
            self._say(f"job {job.id}: {job.state}")

    def quiet(self, seconds: float) -> None:
        """Once per silence."""
        if not self._silent:
            self._silent = True
            self._say("the cluster does not answer; trying again")

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class LiveJob:
    """One line on a terminal."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._status = Status(Text("job: asking"), console=console)

    def __enter__(self) -> LiveJob:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def show(self, job: Job, log: str) -> None:
        """State, how long we have waited, and the newest line."""
        lines = progress_in(log)
        waited = short(self._clock() - self._began)
        text = f"job {job.id}: {job.state}, {waited}" + (f"; {lines[-1]}" if lines else "")
        self._status.update(Text(text, no_wrap=True, overflow="ellipsis"))

    def quiet(self, seconds: float) -> None:
        """For how long."""
        self._status.update(Text(f"the cluster has not answered for {short(seconds)}; trying again"))


def make_job_progress() -> JobProgress:
    """A live line when stderr is a terminal, else plain text."""
    console = Console(stderr=True)
    return LiveJob(console) if console.is_terminal else PlainJob()
