"""`tsdf-ray prepare`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsdf_ray.cli.collections import PART, PartOption, WorkersOption, not_empty
from tsdf_ray.cli.play import AddressOption


def prepare(
    source: Annotated[
        str, typer.Argument(metavar="IN", callback=not_empty, help="Photos: a folder or Parquet, by path or URI.")
    ],
    out: Annotated[str, typer.Option("--out", callback=not_empty, help="Folder of the Parquet parts, by path or URI.")],
    scenario: Annotated[
        str, typer.Option("--scenario", help="Whose attacker prepares: a name or file.")
    ] = "quickstart",
    attacker: Annotated[str | None, typer.Option("--attacker", help="Which attacker of the scenario.")] = None,
    part: PartOption = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
) -> None:
    """Prepare a photo collection as an attacker does before it trains: detect, drop, crop.

    The same command again goes on where it ended.
    """
    from tsdf_ray.cli.collections import show, told
    from tsdf_ray.collections import jobs

    with told() as tell:
        result = jobs().prepare(
            source,
            out,
            scenario=scenario,
            attacker=attacker,
            part=PART if part is None else part,
            address=address,
            workers=workers,
            tell=tell,
        )
    show(result)
