"""`tsdf-ray play`."""

from __future__ import annotations

from typing import Annotated

import typer

ExecutorOption = Annotated[str, typer.Option("--executor", help="ray: one process per role; inprocess: for debugging.")]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="A running Ray cluster; default: RAY_ADDRESS, else a local one.")
]

LogSummaryOption = Annotated[
    bool, typer.Option("--log-summary", help="At the end, also print the result as one line for `submit`.")
]


def play(
    scenario: Annotated[str, typer.Argument(help="A packaged scenario (`tsdf-ray scenarios list`) or a YAML file.")],
    out: Annotated[
        str | None,
        typer.Option("--out", help="Folder of the run, or a URI (s3://, gs://, ...); default: runs/NAME-TIME."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, for example rounds=2; may be repeated."),
    ] = None,
    executor: ExecutorOption = "ray",
    address: AddressOption = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html and figures.")] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on when --out is a run of this scenario already.")
    ] = False,
    log_summary: LogSummaryOption = False,
) -> None:
    """Play a scenario, every defender against every attacker."""
    from tsdf_ray import api
    from tsdf_ray.cli import outcome
    from tsdf_ray.cli.progress import make_progress
    from tsdf_ray.cli.stopping import stoppable

    progress = make_progress()
    with stoppable(progress.ask):
        run = api.play(
            scenario,
            out,
            changes=tuple(changes or ()),
            executor=executor,
            address=address,
            progress=progress,
            report=report,
            go_on=resume,
        )
    if log_summary:
        typer.echo(outcome.of(run).line())
    outcome.show(run)
