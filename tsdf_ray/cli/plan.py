"""`tsdf-ray plan`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tsdf_ray.cli.play import AddressOption


def plan(
    scenario: Annotated[str, typer.Argument(help="A packaged scenario (`tsdf-ray scenarios list`) or a YAML file.")],
    address: AddressOption = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="NODES",
            help="A cluster on paper, instead of one that is asked: 2x8gpu, 2x8gpu:96cpu, 1x16cpu + 4x8gpu:128cpu; "
            "8 CPUs per GPU where it says none.",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, for example rounds=2; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
    probe: Annotated[
        bool,
        typer.Option("--probe/--no-probe", help="Measure one batch on this machine, where the weights are at hand."),
    ] = True,
) -> None:
    """Who would run where, what that takes, and what does not fit.

    Without --address, --cluster and RAY_ADDRESS: on this machine.
    """
    from tsdf_ray.address import cluster_address
    from tsdf_ray.errors import UserError
    from tsdf_ray.game.clusters import parse_cluster
    from tsdf_ray.game.plan_report import plan_report
    from tsdf_ray.game.plan_text import plan_lines
    from tsdf_ray.game.supply import supply_of
    from tsdf_ray.scenario import Scenario

    game = Scenario.load(scenario, tuple(changes or ()))
    if cluster is not None:
        if address is not None:
            raise UserError("--cluster and --address: a plan is for one of them; leave the other out")
        supply = parse_cluster(cluster)
    else:
        joined = cluster_address(address)
        supply = supply_of("inprocess" if joined is None else "ray", joined)
    report = plan_report(game, supply, measure=probe)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    for line in plan_lines(report):
        typer.echo(line)
