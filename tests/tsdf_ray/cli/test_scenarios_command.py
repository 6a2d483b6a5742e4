"""`tsdf-ray scenarios`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tsdf_ray import library
from tsdf_ray.cli import app
from tsdf_ray.game.estimate import Cost
from tsdf_ray.game.needs import Need
from tsdf_ray.scenario import Scenario, packaged_scenarios

ENTRY = library.Entry(
    "paper/big",
    "Does a question longer than one line of eighty columns stay whole, and is it broken between words alone?",
    Cost(1e9, 1e9, 1, 1.0, 1.0, 2.0, None),
    (
        Need("generator", "no/200000-G.ckpt", "200000-G.ckpt (stargan, official)", "from its authors"),
        Need("defenders.a.surrogate", "no/200000-G.ckpt", "200000-G.ckpt (stargan, official)", "from its authors"),
        Need("faces.path", ".", "photos", "yours"),
    ),
)


def test_list_tells_question_cost_and_needs() -> None:
    result = CliRunner().invoke(app, ["scenarios", "list"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(packaged_scenarios())
    assert max(map(len, lines)) <= 80
    text = " ".join(result.stdout.split())
    cores = len(os.sched_getaffinity(0))
    assert re.search(
        r"quickstart Does poisoning the attacker's data preparation keep an interruption alive, and against whom\? "
        rf"~[0-9.]+ (s|min|h) on {cores} cores?; needs: nothing smoke",
        text,
    )


def test_list_of_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "entries", lambda: [ENTRY])
    shown = CliRunner().invoke(app, ["scenarios", "list"]).stdout
    assert shown.splitlines() == [
        "paper/big",
        "  Does a question longer than one line of eighty columns stay whole, and is it",
        "  broken between words alone?",
        "  ~9.3 GPU-hours; needs: 200000-G.ckpt (stargan, official), 2 GPUs",
    ]
    rows = json.loads(CliRunner().invoke(app, ["scenarios", "list", "--json"]).stdout)
    assert rows == [
        {
            "name": "paper/big",
            "question": ENTRY.question,
            "cost": "~9.3 GPU-hours",
            "seconds": 16677,
            "gflop": 1e9,
            "needs": ["200000-G.ckpt (stargan, official)", "2 GPUs"],
        }
    ]


def test_list_is_quick_and_does_without_torch() -> None:
    code = (
        "import sys\n"
        "from tsdf_ray.cli import main\n"
        "sys.argv = ['tsdf-ray', 'scenarios', 'list']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "print(sorted({'torch', 'ray', 'pyarrow', 'numpy'} & set(sys.modules)), code)\n"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    after = os.times()
    assert done.stdout.splitlines()[-1] == "[] 0"
    # CPU time, start of Python included: the machine may be busy with other work.
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert seconds < 1.5, f"{seconds:.2f} s"


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
    assert re.search(r"\n  ~[0-9.]+ \w+ on [0-9]+ cores?\n", result.stdout)


def test_check_tells_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(Scenario.load("smoke", ("generator=no/gen_00600000.pt", "judge=/no/judge.safetensors")).as_yaml())
    result = CliRunner().invoke(app, ["scenarios", "check", str(path)])
    assert result.exit_code == 0
    assert "needs generator: no such file or folder: no/gen_00600000.pt; the official file, from" in result.stdout
    assert "needs judge: no such file or folder: /no/judge.safetensors" in result.stdout
    path.write_text(Scenario.load("smoke", ("generator=no/mine.safetensors",)).as_yaml())
    result = CliRunner().invoke(app, ["scenarios", "check", str(path)])
    assert "the cost of generator 'no/mine.safetensors' is not known" in result.stdout


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


def test_check_tells_of_a_search(tmp_path: Path) -> None:
    path = tmp_path / "searched.yaml"
    path.write_text(
        "name: searched\ndefenders: {a: {kind: noise}}\nattackers: {b: {}}\nsearch:\n  trials: 5\n"
        "  parameters: {defenders.a.epsilon: {kind: uniform, low: 0.01, high: 0.1}}\n"
        "  objectives: {kept: {metric: protection}, change: {metric: ssim, direction: minimize}}\n"
        "  constraints: {quality: {metric: psnr, at_least: 30}}\n"
    )
    result = CliRunner().invoke(app, ["scenarios", "check", str(path)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[2] == (
        "  search: 5 trial(s) of 1 parameter(s): defenders.a.epsilon; maximize kept (protection), "
        "minimize change (ssim); constraints: quality"
    )
    wrong = path.read_text().replace("epsilon:", "epsilom:")
    path.write_text(wrong)
    result = CliRunner().invoke(app, ["scenarios", "check", str(path)])
    assert result.exit_code == 2
    assert f"{path}:6: search.parameters.defenders.a.epsilom: unknown key" in result.output
