"""`tsdf-ray weights check | list`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="Generator weights: which there are, what is in one.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_weights() -> None:
    """Packaged weights, and the names of the official releases (which are not downloaded)."""
    from tsdf_ray.generators.catalogue import packaged_weights
    from tsdf_ray.generators.official import RELEASES

    packaged = packaged_weights()
    width = max(len(name) for name in [*(item.name for item in packaged), *(item.file for item in RELEASES)])
    families = max(len(family) for family in [*(item.family for item in packaged), *(item.family for item in RELEASES)])
    typer.echo("packaged:")
    for item in packaged:
        typer.echo(f"  {item.name:<{width}}  {item.family:<{families}}  {', '.join(item.attributes)}")
    typer.echo("official releases, to be had from their authors (`weights check FILE` reads one):")
    for release in RELEASES:
        typer.echo(f"  {release.file:<{width}}  {release.family:<{families}}  {release.source}")


@app.command("check")
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file of ours, an official one, or a packaged name.")],
) -> None:
    """Load weights and tell family, size, digest and attributes."""
    from tsdf_ray.generators.catalogue import describe_weights

    info = describe_weights(file)
    size = ", ".join(f"{part} {count:,}" for part, count in info.parameters.items())
    rows = {
        "file": str(info.path),
        "family": info.family + (" (official checkpoint)" if info.official else ""),
        "size": f"{size} parameters",
        "attributes": ", ".join(info.attributes),
        "digest": info.digest,
        "sha256": info.file_digest,
    }
    for name, text in (rows | info.missing).items():
        typer.echo(f"{name:<13}  {text}")
