"""docs/extending.md as a plug-in author follows it: the class, its entry point, its contract test, a scenario."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tsdf_ray.testing.attacker_contract import AttackerContract
from tsdf_ray.testing.detector_contract import DetectorContract
from tsdf_ray.testing.generator_contract import GeneratorContract

COMMAND = "from tsdf_ray.cli import main; main()"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The page's files in a folder that counts as an installed distribution once it is on the path."""
    page = PAGE.read_text(encoding="utf-8")
    module, test, others = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (project,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (scenario,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mydefence.py").write_text(module)
    (tmp_path / "test_mydefence.py").write_text(test)
    (tmp_path / "test_others.py").write_text(others)
    (tmp_path / "mine.yaml").write_text(scenario)
    info = tmp_path / "mydefence-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mydefence\nVersion: 1.0\n")
    groups = tomllib.loads(project)["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups.items()]
    (info / "entry_points.txt").write_text("".join(lines))
    return tmp_path


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(path for path in (str(folder), os.environ.get("PYTHONPATH")) if path)
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(
        [sys.executable, *command],
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )


def test_the_defence_keeps_the_contract(plugin: Path) -> None:
    done = run(plugin, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mydefence.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 passed" in done.stdout


def test_the_other_contracts_are_subclassed_as_shown(plugin: Path) -> None:
    done = run(plugin, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_others.py")
    assert done.returncode == 0, done.stdout + done.stderr
    contracts = (AttackerContract, DetectorContract, GeneratorContract)
    tests = sum(name.startswith("test_") for contract in contracts for name in dir(contract))
    assert f"{tests} passed" in done.stdout


def test_a_careless_one_is_caught(plugin: Path) -> None:
    module = plugin / "mydefence.py"
    draw = 'rng = torch_rng(knowledge.run_seed, knowledge.round, "defender", "fgsm", name)'
    assert draw in module.read_text()
    module.write_text(module.read_text().replace(draw, "rng = None"))
    done = run(plugin, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mydefence.py")
    assert done.returncode == 1
    assert "the global generator was used" in done.stdout


def test_the_scenario_finds_it(plugin: Path) -> None:
    done = run(plugin, "-c", COMMAND, "scenarios", "check", "mine.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 match(es) of 2 round(s)" in done.stdout
    scenario = plugin / "mine.yaml"
    scenario.write_text(scenario.read_text().replace("start: 0.25", "start: 2"))
    done = run(plugin, "-c", COMMAND, "scenarios", "check", "mine.yaml")
    assert done.returncode == 2
    assert "defenders.fgsm.start" in done.stderr
