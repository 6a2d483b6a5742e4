"""`tsdf-ray protect`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tsdf_ray.protection import Protected


class NoFace(enum.StrEnum):
    """What happens to a photo in which no face is found."""

    skip = "skip"
    whole = "whole"


class OnBad(enum.StrEnum):
    """What happens to a photo that cannot be read."""

    stop = "stop"
    skip = "skip"


def protect(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder of photos; subfolders are kept.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the protected photos (PNG).")],
    defender: Annotated[
        str | None, typer.Option("--defender", help="Defence to learn (found), or a defender of the run.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Use what a run's defender learned.")
    ] = None,
    attacker: Annotated[str | None, typer.Option("--attacker", help="Against which attacker of the run.")] = None,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="Budget on the [-1, 1] scale (0.05), or the run's.")
    ] = None,
    no_face: Annotated[
        NoFace, typer.Option("--no-face", help="A photo without a face: left out, or its middle square is protected.")
    ] = NoFace.skip,
    on_bad: Annotated[OnBad, typer.Option("--on-bad", help="A bad photo: stop, or skip and list it.")] = OnBad.stop,
    table: Annotated[
        Path | None, typer.Option("--table", help="Visibility per photo, .csv or .parquet; default OUT/visibility.csv.")
    ] = None,
) -> None:
    """Protect a folder of photos.

    Around each face, what a defence learned is added, inside the budget; nothing else changes.
    """
    from tsdf_ray.cli.stopping import stoppable
    from tsdf_ray.game.control import StopFlag
    from tsdf_ray.protection import protect as run_protect

    flag = StopFlag("stopped as asked; photos already written are whole")

    def tell(what: str, done: int, total: int) -> None:
        flag.check()
        if done % 10 == 0:
            typer.echo(f"{what}: {done}/{total}", err=True)

    with stoppable(flag.ask):
        result = run_protect(
            source,
            out,
            defender=defender,
            run=run,
            attacker=attacker,
            epsilon=epsilon,
            no_face=no_face.value,
            on_bad=on_bad.value,
            table=table,
            tell=tell,
        )
    _show(result)


def _show(result: Protected) -> None:
    """The table of visibility, and what was left out."""
    from rich.table import Table
    from rich.text import Text

    from tsdf_ray.cli.outcome import table_console

    lines = Table(box=None, padding=(0, 2))
    for title in ("photo", "faces", "PSNR", "SSIM", "max |delta|", "note"):
        lines.add_column(title, justify="left" if title in {"photo", "note"} else "right", overflow="fold")
    for row in result.table.to_pylist():
        numbers = [
            "-" if row["psnr"] is None else f"{row['psnr']:.1f}",
            "-" if row["ssim"] is None else f"{row['ssim']:.3f}",
        ]
        delta = "-" if row["max_delta"] is None else f"{row['max_delta']:.4f} ({row['max_steps']}/255)"
        faces = "-" if row["faces"] is None else str(row["faces"])
        lines.add_row(*(Text(printable(text)) for text in (row["photo"], faces, *numbers, delta, row["note"] or "")))
    table_console().print(lines)
    typer.echo(
        f"{len(result.written)} protected, {len(result.without_face)} without a face, "
        f"{len(result.skipped)} bad; table: {result.table_path}"
    )


def printable(text: str) -> str:
    """Names come from outside: no control character reaches the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
