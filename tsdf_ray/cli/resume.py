"""`tsdf-ray resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsdf_ray.cli.play import AddressOption, ExecutorOption
from tsdf_ray.cli.tune import LogOption


def resume(
    run: Annotated[
        str, typer.Argument(metavar="DIR", help="Folder (or URI) of a stopped, killed or failed run or search.")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="resources.KEY=VALUE", help="Other resources than it began with; may be repeated."
        ),
    ] = None,
    executor: ExecutorOption = "ray",
    address: AddressOption = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html and figures.")] = True,
    log: LogOption = None,
) -> None:
    """Go on with a run or a search: what is finished is kept, the rest is played."""
    from tsdf_ray import api
    from tsdf_ray.cli import outcome
    from tsdf_ray.cli.stopping import stoppable
    from tsdf_ray.store.run import Run

    if Run(run).info.get("kind") == "search":
        from tsdf_ray.cli.search_progress import make_search_progress

        searching = make_search_progress()
        with stoppable(searching.ask):
            found = api.resume(
                run,
                changes=tuple(changes or ()),
                address=address,
                progress=searching,
                report=report,
                loggers=tuple(log or ()),
            )
        outcome.show_search(found)
        return
    from tsdf_ray.cli.progress import make_progress

    playing = make_progress()
    with stoppable(playing.ask):
        finished = api.resume(
            run, changes=tuple(changes or ()), executor=executor, address=address, progress=playing, report=report
        )
    outcome.show(finished)
