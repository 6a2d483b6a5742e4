"""The command line: one file per command, each a thin skin over `tsdf_ray.api`.

Nothing heavy (torch, ray, pyarrow, matplotlib) is imported before a command runs, so `--help` answers at once.
Exit codes: 0 done, 1 a match failed, 2 a mistake in what was given, 130 stopped by SIGINT, 143 by SIGTERM.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from tsdf_ray.cli import (
    doctor,
    measure,
    nodes,
    plan,
    play,
    prepare,
    pretrain,
    protect,
    report,
    resume,
    scenarios,
    submit,
    tune,
    weights,
)
from tsdf_ray.cli.group import Commands

app = typer.Typer(
    cls=Commands,
    name="tsdf-ray",
    help="The arms race between photo protection and deepfakes: play it, report it, protect photos.",
    no_args_is_help=True,
    add_completion=False,
    # A bug keeps Python's own traceback; mistakes of the user never get one.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("play")(play.play)
app.command("plan")(plan.plan)
app.command("tune")(tune.tune)
app.command("resume")(resume.resume)
app.command("submit")(submit.submit)
app.command("nodes")(nodes.nodes)
app.command("report")(report.report)
app.add_typer(scenarios.app, name="scenarios")
app.command("protect")(protect.protect)
app.command("prepare")(prepare.prepare)
app.command("measure")(measure.measure)
app.command("pretrain")(pretrain.pretrain)
app.add_typer(weights.app, name="weights")
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tsdf-ray {version('tsdf-ray')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """The arms race between photo protection and deepfakes: play it, report it, protect photos."""


def main() -> None:
    """Entry of the console script `tsdf-ray`."""
    app()


__all__ = ["app", "main"]
