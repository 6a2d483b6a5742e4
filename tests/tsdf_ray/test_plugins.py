"""A user's own classes join by entry point: a class of every kind, named in a scenario and played."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import tsdf_ray
from tsdf_ray.attackers import Attacker
from tsdf_ray.defenders import make_defender
from tsdf_ray.detectors import load_detector
from tsdf_ray.errors import UserError
from tsdf_ray.generators import PretrainConfig, describe_weights, load_family, save_family
from tsdf_ray.scenario import Scenario

MODULE = """
from typing import ClassVar

from pydantic import Field

from tsdf_ray.attackers import Attacker, AttackerConfig
from tsdf_ray.defenders import DefenderConfig
from tsdf_ray.defenders.noise import Noise
from tsdf_ray.generators import Editor
from tsdf_ray.testing.linear import BrightCells


class Redraw(Editor):
    name = "redraw"


class Bright(BrightCells):
    name = "bright"

    @classmethod
    def load(cls, weights=None):
        return cls(gain=30.0 if weights else 40.0).eval()


class Hiss(Noise):
    name = "hiss"


class LazyConfig(AttackerConfig):
    kind: str = "lazy"
    starts: int = Field(2, ge=1, le=100, description="first round in which it retrains")


class Lazy(Attacker):
    name: ClassVar[str] = "lazy"
    config_class: ClassVar[type[AttackerConfig]] = LazyConfig

    def retrain(self, round, pool, family):
        return super().retrain(round, pool if round >= self.config.starts else [pool[0].take([])], family)
"""
POINTS = """
[tsdf_ray.generators]
redraw = mine_of_tests:Redraw
[tsdf_ray.detectors]
bright = mine_of_tests:Bright
[tsdf_ray.defenders]
hiss = mine_of_tests:Hiss
[tsdf_ray.attackers]
lazy = mine_of_tests:Lazy
torn = mine_of_tests:NotThere
"""
TINY = {"widths": [8, 8], "blocks": 1, "discriminator_widths": [8, 8], "classifier_width": 4}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path that counts as an installed distribution."""
    site = tmp_path / "site"
    info = site / "mine_of_tests-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "mine_of_tests.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine-of-tests\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "mine_of_tests", raising=False)
    return site


@pytest.fixture
def content(installed: Path, tmp_path: Path) -> dict[str, Any]:
    weights = tmp_path / "redraw.safetensors"
    save_family(weights, PretrainConfig(family="redraw", settings=TINY).fresh())
    return {
        "name": "plug-ins",
        "rounds": 2,
        "faces": {"source": "sample", "size": 64, "counts": {"defender": 4, "attacker": 12, "evaluation": 4}},
        "generator": str(weights),
        "detector_weights": {"bright": str(weights)},
        "defenders": {"hiss": {"kind": "hiss", "epsilon": 0.05}},
        "attackers": {
            "late": {
                "kind": "lazy",
                "collect": {"photos": 6},
                "prepare": {"detectors": ["bright"], "on_miss": "keep"},
                "retrain": {"train": {"steps": 2, "batch": 4, "learning_rate": 0.01}},
            }
        },
        "evaluation": {"detectors": ["bright"], "decay": [0, 1], "resamples": 100, "samples": 1},
    }


def played(content: dict[str, Any]) -> Scenario:
    return Scenario.model_validate(content)


def test_each_is_found_by_its_name(installed: Path, content: dict[str, Any]) -> None:
    assert type(make_defender("hiss")).__name__ == "Hiss"
    assert type(load_detector("bright")).__name__ == "Bright"
    assert type(load_family(content["generator"])).__name__ == "Redraw"
    assert describe_weights(content["generator"]).family == "redraw"


def test_a_scenario_of_plug_ins_alone_is_played(content: dict[str, Any], tmp_path: Path) -> None:
    run = tsdf_ray.play(played(content), tmp_path / "run", executor="inprocess", report=False)
    assert run.status == "complete"
    rounds = [line for line in (run.path / "manifest.jsonl").read_text().splitlines() if line]
    # The plug-in's own key is at work: in round 1 it does not retrain, in round 2 it does.
    assert "0 usable photos" in rounds[0]
    assert "0 usable photos" not in rounds[1]


def test_a_plug_ins_keys_travel_and_count(content: dict[str, Any]) -> None:
    content["attackers"]["late"]["starts"] = 3
    scenario = played(content)
    for again in (
        Scenario.model_validate_json(scenario.as_json()),
        Scenario.model_validate(yaml.safe_load(scenario.as_yaml())),
    ):
        assert again.attackers["late"].model_dump()["starts"] == 3
        assert again.digest == scenario.digest
    content["attackers"]["late"]["starts"] = 4
    assert played(content).digest != scenario.digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"starts": 0}, "attackers.late.starts: must be greater than or equal to 1"),
        ({"start": 1}, "attackers.late.start: unknown key. Did you mean 'starts'?"),
        ({"kind": "hasty"}, "attackers.late.kind: attackers: unknown name 'hasty'; valid names: adaptive, lazy, torn"),
        ({"kind": "torn"}, "plug-in 'torn' (mine_of_tests:NotThere) cannot be loaded"),
        ({"kind": "adaptive", "starts": 1}, "attackers.late.starts: unknown key"),
    ],
)
def test_a_mistake_is_named(content: dict[str, Any], tmp_path: Path, change: dict[str, Any], words: str) -> None:
    content["attackers"]["late"] |= change
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as mistake:
        Scenario.load(path)
    assert words in str(mistake.value)


def test_without_a_kind_it_is_the_built_in_attacker() -> None:
    """Written and digested as before there were kinds."""
    plain, named = (Scenario.load("smoke", change) for change in ((), ("attackers.mtcnn.kind=adaptive",)))
    assert plain.attackers["mtcnn"].kind == Attacker.name
    assert "kind" not in plain.attackers["mtcnn"].model_dump()
    assert named.digest == plain.digest
