"""What the commands over photo collections share: options, progress and how a result is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tsdf_ray.collections import Written


def not_empty(param: typer.CallbackParam, given: str) -> str:
    """Refuses an empty place, which would mean the current folder. Raises UserError."""
    if not given.strip():
        from tsdf_ray.errors import UserError

        name = param.opts[0] if param.opts[0].startswith("-") else (param.metavar or param.name)
        raise UserError(f"{name}: is empty (a variable that is not set?); give a folder or a URI")
    return given


WorkersOption = Annotated[int | None, typer.Option("--workers", help="Actors; default: one per CPU of the cluster.")]
PartOption = Annotated[
    int | None, typer.Option("--part", help="Photos of a Parquet part, at most (256): what a restart may do again.")
]
PART = 256
EVERY_SECONDS = 5.0


@contextmanager
def told() -> Iterator[Callable[[str, int, int], None]]:
    """Progress for a job: a line every few seconds; SIGINT and SIGTERM end it, with finished parts kept."""
    from tsdf_ray.cli.stopping import stoppable
    from tsdf_ray.game.control import StopFlag

    flag = StopFlag("stopped as asked; finished parts are kept, the same command goes on")
    began = last = time.monotonic()
    start: int | None = None

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last, start
        flag.check()
        start = done if start is None else start
        now = time.monotonic()
        if now - last >= EVERY_SECONDS:
            last = now
            rate = f"{(done - start) / (now - began):.1f} per second" if done > start else "starting"
            typer.echo(f"{what}: {done}/{total} photos, {rate}", err=True)

    with stoppable(flag.ask):
        yield tell


def show(result: Written) -> None:
    """One line: photos, what became of them, where."""
    parts = result.progress
    counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in result.counts.items())
    means = "".join(f", mean {name.upper()} {value:.3f}" for name, value in result.means.items())
    typer.echo(
        f"{parts.photos} photos: {counts}{means}; {parts.computed} of {parts.parts} parts computed now; {result.out}"
    )
