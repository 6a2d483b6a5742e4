"""What a defender may know is decided by the match: which generator it is shown, and which models it can ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import tsdf_ray
from tsdf_ray.defenders import DEFENDERS, DefenceState, Defender, DefenderConfig, Knowledge
from tsdf_ray.digest import array_digest
from tsdf_ray.errors import MatchFailed, UserError
from tsdf_ray.faces import FaceSet
from tsdf_ray.game.materials import Materials, load_materials
from tsdf_ray.game.players import DefenderRole
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.generators import Editor, EditorConfig, fresh_family, load_family, save_family
from tsdf_ray.scenario import Scenario

SMALL = {
    "name": "knowledge",
    "rounds": 2,
    "faces": {"source": "sample", "size": 32, "counts": {"defender": 4, "attacker": 8, "evaluation": 4}},
    "attackers": {
        "plain": {
            "collect": {"photos": 4},
            "prepare": {"detectors": [], "crop": "none"},
            "retrain": {"mode": "finetune", "train": {"steps": 2, "batch": 4, "learning_rate": 0.01}},
        }
    },
    "evaluation": {"detectors": [], "decay": [0, 1], "resamples": 100, "samples": 1},
}


class Spy(Defender):
    """Notes which generators it is shown, and asks for those it was told to."""

    name: ClassVar[str] = "spy"
    config_class: ClassVar[type[DefenderConfig]] = DefenderConfig
    seen: ClassVar[list[tuple[int, str]]] = []
    asks: ClassVar[tuple[str, str] | None] = None

    def learn(self, knowledge: Knowledge) -> DefenceState:
        if Spy.asks is not None:
            room, name = Spy.asks
            getattr(knowledge, room)[name]
        (family,) = knowledge.generators.values()
        Spy.seen.append((knowledge.round, array_digest(family.tensors())))
        return DefenceState(knowledge, {"w": np.zeros((1, 3, 32, 32), np.float32)})

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        (family,) = state.knowledge.generators.values()
        Spy.seen.append((state.knowledge.round, array_digest(family.tensors())))
        return torch.tensor(state.tensors["w"])


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> type[Spy]:
    monkeypatch.setitem(DEFENDERS, "spy", Spy)
    monkeypatch.setattr(Spy, "seen", [])
    monkeypatch.setattr(Spy, "asks", None)
    return Spy


def _weights(path: Path, seed: int, attributes: tuple[str, ...] | None = None) -> str:
    config = EditorConfig(widths=(8, 8), blocks=1, discriminator_widths=(8, 8), classifier_width=4)
    if attributes:
        config = config.model_copy(update={"attributes": attributes})
    save_family(path, fresh_family(Editor, config, seed, "knowledge"))
    return str(path)


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    return SMALL | {"generator": _weights(tmp_path / "own.safetensors", 1)}


def _role(content: dict[str, Any], **entry: Any) -> tuple[DefenderRole, Materials]:
    scenario = Scenario.model_validate(content | {"defenders": {"d": {"kind": "spy", **entry}}})
    materials = load_materials(scenario, 0)
    return DefenderRole(MatchSpec(scenario.as_json(), "d", "plain", 0), materials), materials


@pytest.mark.parametrize("level", ["last_round", "initial", "surrogate"])
def test_a_race_shows_each_level_its_generator(
    level: str, spy: type[Spy], content: dict[str, Any], tmp_path: Path
) -> None:
    other = _weights(tmp_path / "other.safetensors", 2)
    entry = {"kind": "spy", "knowledge": level} | ({"surrogate": other} if level == "surrogate" else {})
    scenario = Scenario.model_validate(content | {"defenders": {"d": entry}})
    run = tsdf_ray.play(scenario, tmp_path / "run", executor="inprocess", report=False)
    assert run.status == "complete"
    shown = {round_: {digest for r, digest in spy.seen if r == round_} for round_ in (1, 2)}
    assert all(len(digests) == 1 for digests in shown.values()), "learn and publish see the same generator"
    initial = array_digest(load_family(content["generator"]).tensors())
    surrogate = array_digest(load_family(other).tensors())
    assert shown[1] == {surrogate if level == "surrogate" else initial}
    if level == "last_round":
        assert not shown[2] & {initial, surrogate}, "round 2 shows what the attacker retrained"
    else:
        assert shown[2] == shown[1]


@pytest.mark.parametrize(("room", "name"), [("generators", "stargan"), ("detectors", "mtcnn")])
def test_asking_for_what_it_may_not_know_ends_the_match(
    room: str, name: str, spy: type[Spy], content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spy, "asks", (room, name))
    role, _ = _role(content, knowledge="initial", detectors=["retinaface"])
    with pytest.raises(MatchFailed, match=f"{name}', which it may not know; known: (editor|retinaface)$"):
        role.learn(1, None)


def test_the_role_refuses_weights_its_defender_may_not_see(spy: type[Spy], content: dict[str, Any]) -> None:
    role, materials = _role(content, knowledge="initial")
    with pytest.raises(MatchFailed, match=r"defender d \(knowledge initial\) was given the attacker's generator"):
        role.learn(1, materials.generator)
    role, _ = _role(content)
    with pytest.raises(MatchFailed, match=r"defender d \(knowledge last_round\) was not given"):
        role.learn(1, None)
    assert spy.seen == []


def test_a_surrogate_must_fit_the_photos(spy: type[Spy], content: dict[str, Any], tmp_path: Path) -> None:
    other = _weights(tmp_path / "other.safetensors", 2, ("Black_Hair", "Young"))
    with pytest.raises(UserError, match=r"Young"):
        _role(content, knowledge="surrogate", surrogate=other)
    with pytest.raises(UserError, match=r"defenders\.d\.surrogate: .*no such file"):
        _role(content, knowledge="surrogate", surrogate="nowhere.safetensors")
    with pytest.raises(ValueError, match="use `knowledge: initial`"):
        _role(content, knowledge="surrogate", surrogate=content["generator"])


@pytest.mark.ray
@pytest.mark.slow
def test_both_executors_play_a_defender_of_limited_knowledge_alike(
    content: dict[str, Any], tmp_path: Path, ray_cluster: None
) -> None:
    eot = [{"kind": "blur", "sigma": 1.0}, {"kind": "resize", "size": 24}]
    entry = {"kind": "found", "knowledge": "initial", "batch": 4, "eot": eot}
    scenario = Scenario.model_validate(content | {"defenders": {"d": entry}})
    digests = []
    for executor in ("inprocess", "ray"):
        run = tsdf_ray.play(scenario, tmp_path / executor, executor=executor, report=False)
        lines = (run.path / "manifest.jsonl").read_text().splitlines()
        digests.append([json.loads(line)["digests"] for line in lines])
    assert len(digests[0]) == 2
    assert digests[0] == digests[1]
