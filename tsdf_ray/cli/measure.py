"""`tsdf-ray measure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tsdf_ray.cli.collections import WorkersOption, not_empty
from tsdf_ray.cli.play import AddressOption

if TYPE_CHECKING:
    from tsdf_ray.collections import Measured

SHOWN = ("measured", "recall", "precision", "score_change", "psnr", "ssim", "edit_success", "protection", "sr_mask")
SETS = ("frechet_", "kernel_")
"""Begin the metrics of whole sets; where they are not available, it is said why."""


def measure(
    clean: Annotated[str, typer.Argument(metavar="CLEAN", callback=not_empty, help="The photos that were protected.")],
    protected: Annotated[
        str, typer.Argument(metavar="PROTECTED", callback=not_empty, help="What protect made of them, as Parquet.")
    ],
    out: Annotated[
        str,
        typer.Option("--out", callback=not_empty, help="Folder of the Parquet parts with the rows, by path or URI."),
    ],
    detectors: Annotated[
        list[str] | None, typer.Option("--detector", help="A detector to ask (retinaface, mtcnn); may be repeated.")
    ] = None,
    size: Annotated[int, typer.Option("--size", min=64, max=1024, help="Photos are compared at this size.")] = 128,
    forgeries: Annotated[
        str | None, typer.Option("--forgeries", metavar="SCENARIO", help="Forge too, with its generator and judge.")
    ] = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
) -> None:
    """Measure a protected collection: detectors and the eye, and forgeries, one by one and as sets, with labels.

    The same command again goes on where it ended.
    """
    from tsdf_ray.cli.collections import told
    from tsdf_ray.collections import jobs

    with told() as tell:
        result = jobs().measure(
            clean,
            protected,
            out,
            detectors=tuple(detectors or ("retinaface", "mtcnn")),
            size=size,
            forgeries=forgeries,
            address=address,
            workers=workers,
            tell=tell,
        )
    _show(result)


def _show(result: Measured) -> None:
    """The main metrics with their intervals."""
    from rich.table import Table

    from tsdf_ray.cli.outcome import table_console

    lines = Table(box=None, padding=(0, 2))
    for title in ("metric", "model", "value", "95 % interval", "photos"):
        lines.add_column(title, justify="left" if title in {"metric", "model"} else "right")
    for row in result.summary:
        shown = row["metric"] in SHOWN or row["metric"].startswith(SETS)
        if shown and row["value"] is not None:
            interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
            lines.add_row(row["metric"], row["model"], f"{row['value']:.3f}", interval, str(row["n"]))
    table_console().print(lines)
    for row in result.summary:
        if row["metric"].startswith(SETS) and row["value"] is None:
            typer.echo(f"{row['metric']}: not available ({row['reason']})")
    typer.echo(f"{result.progress.photos} photos; all metrics: {result.out}/_summary.json")
