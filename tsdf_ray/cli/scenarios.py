"""`tsdf-ray scenarios list | show | check | schema`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tsdf_ray.cli.group import MISTAKE

app = typer.Typer(help="The library of scenarios, and checks of your own.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_scenarios() -> None:
    """Name and question of every packaged scenario."""
    from tsdf_ray.scenario.load import packaged_scenarios
    from tsdf_ray.scenario.yamlfile import parse_yaml

    rows = []
    for name, resource in packaged_scenarios().items():
        content = parse_yaml(resource.read_text(encoding="utf-8"), name).content
        rows.append((name, str(content.get("title", ""))))
    width = max((len(name) for name, _ in rows), default=0)
    for name, title in rows:
        typer.echo(f"{name:<{width}}  {title}".rstrip())


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
    """Check scenarios without playing them: every mistake with file, line, key and the remedy."""
    from tsdf_ray.errors import UserError
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
    if bad:
        raise typer.Exit(MISTAKE)


@app.command("schema")
def schema() -> None:
    """The JSON Schema of a scenario, for editors and other programs."""
    from tsdf_ray.scenario.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
