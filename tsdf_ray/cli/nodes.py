"""`tsdf-ray nodes`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsdf_ray.cli.play import AddressOption


def nodes(
    address: AddressOption = None,
    wait: Annotated[int, typer.Option("--wait", min=1, metavar="N", help="Wait until N nodes are there.")] = 1,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait; then exit with 2.")] = 0.0,
) -> None:
    """List the nodes of a cluster, or wait for them."""
    from tsdf_ray.address import cluster_address
    from tsdf_ray.errors import UserError
    from tsdf_ray.remote import wait_for_nodes

    joined = cluster_address(address)
    if joined is None:
        raise UserError("--address: say which cluster, HOST:6379, or set RAY_ADDRESS")
    supply = wait_for_nodes(joined, wait, timeout, lambda text: typer.echo(text, err=True))
    for cpus, gpus in supply.machines:
        typer.echo(f"node: {cpus:g} CPUs, {gpus:g} GPUs")
    typer.echo(f"{len(supply.machines)} node(s): {supply.cpus:g} CPUs, {supply.gpus:g} GPUs")
