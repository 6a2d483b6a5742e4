"""`tsdf-ray scenarios`."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from typer.testing import CliRunner

from tsdf_ray.cli import app
from tsdf_ray.scenario import Scenario, packaged_scenarios


def test_list_names_every_scenario_and_its_question() -> None:
    result = CliRunner().invoke(app, ["scenarios", "list"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(packaged_scenarios())
    assert any("quickstart" in line and "poisoning" in line for line in lines)


def test_show(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["scenarios", "show", "quickstart"])
    assert result.exit_code == 0
    assert result.stdout.rstrip() == packaged_scenarios()["quickstart"].read_text(encoding="utf-8").rstrip()
    filled = CliRunner().invoke(app, ["scenarios", "show", "quickstart", "--filled"])
    content = yaml.safe_load(filled.stdout)
    assert Scenario.model_validate(content).digest == Scenario.load("quickstart").digest
    assert content["defenders"]["found"]["batch"] > 0
    # What is shown can be kept as a file and checked.
    path = tmp_path / "mine.yaml"
    path.write_text(filled.stdout)
    checked = CliRunner().invoke(app, ["scenarios", "check", str(path), "smoke"])
    assert checked.exit_code == 0
    assert Scenario.load("quickstart").digest in checked.stdout


def test_check_tells_of_every_file(tmp_path: Path) -> None:
    bad, worse = tmp_path / "bad.yaml", tmp_path / "worse.yaml"
    bad.write_text("name: bad\nroundz: 3\ndefenders: {a: {kind: none}}\nattackers: {b: {}}\n")
    worse.write_text("")
    result = CliRunner().invoke(app, ["scenarios", "check", str(bad), "quickstart", str(worse)])
    assert result.exit_code == 2
    assert f"{bad}:2: roundz: unknown key. Did you mean 'rounds'?" in result.stderr
    assert f"{worse}: is empty" in result.stderr
    assert "quickstart: good; 4 match(es) of 3 round(s)" in result.stdout


def test_schema() -> None:
    result = CliRunner().invoke(app, ["scenarios", "schema"])
    assert result.exit_code == 0
    schema = json.loads(result.stdout)
    assert schema["additionalProperties"] is False
    assert {"rounds", "defenders", "attackers"} <= schema["properties"].keys()


def test_show_unknown() -> None:
    result = CliRunner().invoke(app, ["scenarios", "show", "quickstrt"])
    assert result.exit_code == 2
    assert "Did you mean 'quickstart'?" in result.stderr
