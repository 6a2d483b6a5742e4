"""`tsdf-ray report`."""

from __future__ import annotations

from typing import Annotated

import typer


def report(
    run: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a run or a search, or URI of a run.")],
) -> None:
    """Write report.html and figures/ of a run anew."""
    from tsdf_ray import api

    typer.echo(f"report: {api.write_report(run)}")
