"""How a run ended, in a few lines: a table per pair, what failed, where the report lies."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tsdf_ray.cli.group import FAILED, leave
from tsdf_ray.files import is_uri
from tsdf_ray.jobs import Outcome, SearchOutcome

if TYPE_CHECKING:
    from tsdf_ray.store.run import Run

COLUMNS = {
    "protection": "protection",
    "hair edits before": "hair_edit_success_before",
    "hair edits after": "hair_edit_success_after",
    "yield": "yield",
}


def of(run: Run) -> Outcome:
    """What is shown of a run that has ended."""
    page = run.path / "report.html"
    failed: dict[str, str] = run.info.get("failed", {})
    return Outcome(run.place, str(page) if page.exists() else None, run.summary["pairs"], failed)


def show(run: Run) -> None:
    """Print the summary and the report's place. Exits with 1 when a match failed."""
    show_outcome(of(run))


def show_outcome(found: Outcome) -> None:
    """As `show`, for a run that may lie elsewhere."""
    # `Text`: square brackets in a plain string are markup to rich.
    table = Table(title=Text("after the last round, 95 % [low, high]"), box=None, padding=(0, 2), title_justify="left")
    table.add_column("defender/attacker", overflow="fold")
    for title in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for pair, metrics in found.pairs.items():
        cells = [cell(metrics.get(name), interval=name == "protection") for name in COLUMNS.values()]
        table.add_row(Text(pair), *map(Text, cells))
    table_console().print(table)
    typer.echo(f"report: {found.page}" if found.page else f"run: {found.place}")
    if found.page and is_uri(found.place):
        typer.echo(f"copied to {found.place}")
    if found.failed:
        reasons = "\n".join(f"{match}: {reason}" for match, reason in found.failed.items())
        again = f"`tsdf-ray resume {shlex.quote(found.place)}` plays them again"
        raise leave(FAILED, f"{len(found.failed)} match(es) failed:\n{reasons}\n{again}")


def of_search(run: Run) -> SearchOutcome:
    """What is shown of a search that has ended."""
    page = run.path / "report.html"
    if not (run.path / "search.json").exists():
        return SearchOutcome(run.place, None, {}, [], [], None, [])
    found = run.search
    kept = ("name", "kind", "searched", "replayed")
    return SearchOutcome(
        run.place,
        str(page) if page.exists() else None,
        {state: count for state, count in found["trials"].items() if count},
        [*found["objectives"], *found["constraints"]],
        [{name: setting[name] for name in kept} for setting in found["settings"]],
        found["reasons"].get("best"),
        list(dict.fromkeys(str(reason) for reason in run.trials["reason"].to_pylist() if reason)),
    )


def show_search(run: Run) -> None:
    """Print settings as searched and as replayed, and the report's place. Exits with 1 when no trial is complete."""
    show_search_outcome(of_search(run))


def show_search_outcome(found: SearchOutcome) -> None:
    """As `show_search`, for a search that may lie elsewhere."""
    if not found.trials:
        raise leave(FAILED, "no trial was begun: raise search.seconds")
    typer.echo("trials: " + ", ".join(f"{count} {state}" for state, count in found.trials.items()))
    if not found.trials.get("complete"):
        said = "\n".join(found.reasons) or "none was begun"
        raise leave(FAILED, f"no trial could be completed:\n{said}\ntheir folders are in {found.place}/trials")
    table = Table(title=Text("searched -> replayed, 95 % [low, high]"), box=None, padding=(0, 2), title_justify="left")
    for title in ("setting", *found.measured):
        table.add_column(Text(title), overflow="fold")
    for setting in found.settings:
        before, after = setting["searched"], setting["replayed"]
        cells = [f"{_plain(before.get(name))} -> {_plain(after.get(name))}" for name in found.measured]
        table.add_row(Text(f"{setting['name']} ({setting['kind']})"), *map(Text, cells))
    table_console().print(table)
    if found.no_best:
        typer.echo(f"no best setting: {found.no_best}")
    typer.echo(f"report: {found.page}" if found.page else f"search: {found.place}")


def _plain(value: dict[str, Any] | None) -> str:
    return cell([value], interval=True)


def table_console() -> Console:
    """Standard output; a pipe has no width, and rich's 80 columns would cut numbers."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def cell(rounds: list[dict[str, Any] | None] | None, *, interval: bool) -> str:
    """The last round's value, with its interval when asked for; `-` where there is none."""
    last = rounds[-1] if rounds else None
    if not last or last.get("value") is None:
        return "-"
    value = f"{last['value']:.2f}"
    if interval and last.get("low") is not None and last.get("high") is not None:
        value += f" [{last['low']:.2f}, {last['high']:.2f}]"
    return value
