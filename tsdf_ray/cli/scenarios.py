"""`tsdf-ray scenarios list | show | check | schema`."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from tsdf_ray.cli.group import MISTAKE

if TYPE_CHECKING:
    from tsdf_ray.scenario import Scenario
    from tsdf_ray.scenario.search import SearchConfig

app = typer.Typer(help="The library of scenarios, and checks of your own.", no_args_is_help=True, rich_markup_mode=None)
WIDTH = 80


@app.command("list")
def list_scenarios(
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON array.")] = False,
) -> None:
    """Every packaged scenario: the question it answers, what it costs here, what it needs."""
    from tsdf_ray.game.estimate import machine_cores
    from tsdf_ray.library import entries

    cores, library = machine_cores(), entries()
    if as_json:
        rows = [
            {
                "name": entry.name,
                "question": entry.question,
                "cost": entry.cost.text(cores),
                "seconds": round(entry.cost.seconds(cores)),
                "gflop": entry.cost.gflop,
                "needs": entry.needs,
            }
            for entry in library
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    for entry in library:
        typer.echo(entry.name)
        cost = f"{entry.cost.text(cores)}; needs: {', '.join(entry.needs) or 'nothing'}"
        for text in (entry.question, cost):
            typer.echo(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A packaged scenario, or a file.")],
    filled: Annotated[bool, typer.Option("--filled", help="As played, with all defaults filled in.")] = False,
) -> None:
    """The YAML of a scenario."""
    from tsdf_ray.scenario.load import find_scenario, load_scenario

    text = load_scenario(name).as_yaml() if filled else find_scenario(name).text
    typer.echo(text.rstrip("\n"))


@app.command("check")
def check(files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files, or packaged names.")]) -> None:
    """Check scenarios without playing them: every mistake with file, line, key and the remedy; what they cost and
    need."""
    from tsdf_ray.errors import UserError
    from tsdf_ray.game.needs import needs_of
    from tsdf_ray.scenario.load import load_scenario

    bad = 0
    for source in files:
        try:
            scenario = load_scenario(source)
        except UserError as error:
            bad += 1
            typer.echo(f"error: {error}", err=True)
        else:
            matches = len(scenario.pairs) * len(scenario.seeds)
            typer.echo(f"{source}: good; {matches} match(es) of {scenario.rounds} round(s); digest {scenario.digest}")
            typer.echo(f"  {_cost(scenario)}")
            if scenario.search is not None:
                typer.echo(f"  {_search(scenario.search)}")
            for need in needs_of(scenario):
                if need.problem is not None:
                    typer.echo(f"  needs {need.key}: {need.problem}; {need.remedy}")
    if bad:
        raise typer.Exit(MISTAKE)


def _cost(scenario: Scenario) -> str:
    from tsdf_ray.errors import UserError
    from tsdf_ray.game.estimate import estimate, machine_cores

    try:
        return estimate(scenario).text(machine_cores())
    except UserError as error:
        return str(error)


def _search(search: SearchConfig) -> str:
    keys, named = search.parameters, search.objectives.items()
    goals = ", ".join(f"{goal.direction} {name} ({goal.metric})" for name, goal in named)
    bounds = f"; constraints: {', '.join(search.constraints)}" if search.constraints else ""
    return f"search: {search.trials} trial(s) of {len(keys)} parameter(s): {', '.join(keys)}; {goals}{bounds}"


@app.command("schema")
def schema() -> None:
    """The JSON Schema of a scenario, for editors and other programs."""
    from tsdf_ray.scenario.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
