"""`tsdf-ray resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsdf_ray.cli.play import AddressOption, ExecutorOption


def resume(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a stopped, killed or failed run.")],
    executor: ExecutorOption = "ray",
    address: AddressOption = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html and figures.")] = True,
) -> None:
    """Go on with a run: finished rounds are kept, the rest is played."""
    from tsdf_ray import api
    from tsdf_ray.cli import outcome
    from tsdf_ray.cli.progress import make_progress
    from tsdf_ray.cli.stopping import stoppable

    progress = make_progress()
    with stoppable(progress.ask):
        finished = api.resume(run, executor=executor, address=address, progress=progress, report=report)
    outcome.show(finished)
