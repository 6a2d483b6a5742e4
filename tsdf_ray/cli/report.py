"""`tsdf-ray report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")]) -> None:
    """Write report.html and figures/ of a run anew."""
    from tsdf_ray.store.run import Run

    typer.echo(f"report: {Run(run).report()}")
