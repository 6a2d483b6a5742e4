"""`tsdf-ray protect`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsdf_ray.cli.collections import PART, PartOption, WorkersOption, not_empty
from tsdf_ray.cli.play import AddressOption

if TYPE_CHECKING:
    from tsdf_ray.protection import Protected


class NoFace(enum.StrEnum):
    """What happens to a photo in which no face is found."""

    skip = "skip"
    whole = "whole"


class Faces(enum.StrEnum):
    """Where faces are."""

    look = "find"
    whole = "whole"


class Format(enum.StrEnum):
    """How the protected photos are written."""

    png = "png"
    parquet = "parquet"


class OnBad(enum.StrEnum):
    """What happens to a photo that cannot be read."""

    stop = "stop"
    skip = "skip"


def protect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN", callback=not_empty, help="Folder of photos; subfolders are kept. Or Parquet, or a URI."
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT", callback=not_empty, help="Folder of the protected photos (PNG), or Parquet parts."
        ),
    ],
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
    faces: Annotated[
        Faces, typer.Option("--faces", help="Look for faces, or take every photo's middle square (aligned photos).")
    ] = Faces.look,
    no_face: Annotated[
        NoFace, typer.Option("--no-face", help="A photo without a face: left out, or its middle square is protected.")
    ] = NoFace.skip,
    on_bad: Annotated[
        OnBad | None, typer.Option("--on-bad", help="A bad photo: stop (PNG), or skip and list it (Parquet).")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="Visibility per photo, .csv or .parquet; default OUT/visibility.csv.")
    ] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="PNG files, or Parquet by Ray (as for Parquet and URIs).")
    ] = None,
    part: PartOption = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
) -> None:
    """Protect a folder of photos, or a collection of any size.

    Around each face, what a defence learned is added, inside the budget; nothing else changes. A collection is written
    as Parquet, in parts, and the same command again goes on where it ended.
    """
    from tsdf_ray.cli.collections import show, told
    from tsdf_ray.collections import is_collection, jobs
    from tsdf_ray.errors import UserError

    large = is_collection(source, out)
    if large and form is Format.png:
        raise UserError("--format png: Parquet and URIs are written as Parquet; leave the option out")
    if large or form is Format.parquet:
        if on_bad is OnBad.stop:
            raise UserError(
                "--on-bad stop: a collection is written while it is read; bad photos become rows with a note"
            )
        if table is not None:
            raise UserError("--table: the Parquet parts hold these columns; leave the option out")
        options = {"defender": defender, "run_dir": run, "attacker": attacker, "epsilon": epsilon}
        options |= {"faces": faces.value, "no_face": no_face.value, "address": address, "workers": workers}
        with told() as tell_parts:
            show(jobs().protect(source, out, **options, part=PART if part is None else part, tell=tell_parts))
        return
    given = {"--part": part, "--address": address, "--workers": workers}
    for option, value in given.items():
        if value is not None:
            raise UserError(f"{option}: goes with --format parquet; PNG files are written by this process alone")
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
            faces=faces.value,
            no_face=no_face.value,
            on_bad="stop" if on_bad is None else on_bad.value,
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
