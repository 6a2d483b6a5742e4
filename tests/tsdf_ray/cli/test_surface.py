"""The surface of the command line is frozen here: a change of a name is a change of the product."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tsdf_ray.cli import app

SURFACE = {
    "play": [
        "--address",
        "--executor",
        "--log-summary",
        "--no-report",
        "--out",
        "--report",
        "--resume",
        "--set",
        "scenario",
    ],
    "plan": ["--address", "--cluster", "--json", "--no-probe", "--probe", "--set", "scenario"],
    "tune": [
        "--address",
        "--log",
        "--log-summary",
        "--no-report",
        "--out",
        "--report",
        "--resume",
        "--set",
        "scenario",
    ],
    "resume": ["--address", "--executor", "--log", "--no-report", "--report", "--set", "run"],
    "submit": [
        "--address",
        "--again",
        "--no-report",
        "--no-wait",
        "--out",
        "--report",
        "--set",
        "--submission-id",
        "--wait",
        "scenario",
    ],
    "nodes": ["--address", "--timeout", "--wait"],
    "report": ["run"],
    "measure": ["--address", "--detector", "--forgeries", "--out", "--size", "--workers", "clean", "protected"],
    "prepare": ["--address", "--attacker", "--out", "--part", "--scenario", "--workers", "source"],
    "protect": [
        "--address",
        "--attacker",
        "--defender",
        "--epsilon",
        "--faces",
        "--format",
        "--from",
        "--no-face",
        "--on-bad",
        "--part",
        "--table",
        "--workers",
        "out",
        "source",
    ],
    "pretrain": [
        "--batch",
        "--data",
        "--device",
        "--family",
        "--on-bad",
        "--photos",
        "--resume",
        "--seed",
        "--set",
        "--size",
        "--source",
        "--steps",
        "out",
    ],
    "doctor": [],
    "scenarios list": ["--json"],
    "scenarios show": ["--filled", "name"],
    "scenarios check": ["files"],
    "scenarios schema": [],
    "weights list": [],
    "weights check": ["file"],
}


def options(command: Any) -> list[str]:
    names: list[str] = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            names.append(parameter.name)
        else:
            names += [*parameter.opts, *parameter.secondary_opts]
    return sorted(names)


def surface(group: Any, prefix: str = "") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= surface(command, f"{prefix}{name} ")
        else:
            found[prefix + name] = options(command)
    return found


def test_commands_and_options() -> None:
    command = typer.main.get_command(app)
    assert surface(command) == SURFACE
    assert options(command) == ["--version"]


@pytest.mark.parametrize("command", ["", *SURFACE])
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
    for name in SURFACE.get(command, []):
        if name.startswith("--") and name not in {"--no-report", "--no-probe"}:
            assert name in result.output


def test_version() -> None:
    from importlib.metadata import version

    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"tsdf-ray {version('tsdf-ray')}\n"


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from tsdf_ray.cli import main\n"
        "sys.argv = ['tsdf-ray', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = {'torch', 'ray', 'pyarrow', 'matplotlib', 'numpy', 'pandas', 'scipy', 'optuna', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)), code)\n"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    after = os.times()
    assert done.stdout.splitlines()[-1] == "[] 0"
    # CPU time, start of Python included: the machine may be busy with other work.
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert seconds < 0.5, f"{seconds:.2f} s"


def test_console_script_is_installed() -> None:
    script = Path(sys.executable).parent / "tsdf-ray"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("tsdf-ray ")


def test_unknown_command_exits_with_2() -> None:
    assert CliRunner().invoke(app, ["protekt"]).exit_code == 2
    assert CliRunner().invoke(app, []).exit_code == 2
