"""`tsdf-ray tune`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsdf_ray.cli.play import AddressOption, LogSummaryOption

LogOption = Annotated[
    list[str] | None,
    typer.Option("--log", metavar="NAME=WHERE", help="Also log to mlflow=TRACKING_URI or wandb=PROJECT."),
]


def tune(
    scenario: Annotated[
        str, typer.Argument(help="A scenario with a section `search`: a packaged one, or a YAML file.")
    ],
    out: Annotated[str | None, typer.Option("--out", help="Folder of the search; default: runs/NAME-TIME.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, for example search.trials=8; may be repeated."),
    ] = None,
    address: AddressOption = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html and figures.")] = True,
    log: LogOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on when --out is a search of this scenario already.")
    ] = False,
    log_summary: LogSummaryOption = False,
) -> None:
    """Search a scenario's settings for the best trade, and play the best again on unseen people."""
    from tsdf_ray import api
    from tsdf_ray.cli import outcome
    from tsdf_ray.cli.search_progress import make_search_progress
    from tsdf_ray.cli.stopping import stoppable

    progress = make_search_progress()
    with stoppable(progress.ask):
        run = api.tune(
            scenario,
            out,
            changes=tuple(changes or ()),
            address=address,
            progress=progress,
            report=report,
            loggers=tuple(log or ()),
            go_on=resume,
        )
    if log_summary:
        typer.echo(outcome.of_search(run).line())
    outcome.show_search(run)
