"""Defences put on photos outside a game: learned on the packaged sample, or taken from a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from photo_folders import write_photos

from tsdf_ray import armour as module
from tsdf_ray.armour import Armour, learned_armour, packaged_armour
from tsdf_ray.digest import array_digest, file_digest
from tsdf_ray.errors import UserError
from tsdf_ray.faces import HAIR, FaceSet
from tsdf_ray.generators import Family, save_family
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.atomic import write_tensors
from tsdf_ray.store.manifest import Entry, Manifest
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.testing.tiny import TINY_SIZE, tiny_editor, tiny_faces


def known(armour: Armour) -> Family:
    """The one generator that the defence may use."""
    (family,) = armour.state.knowledge.generators.values()
    return family


@pytest.fixture
def scenario_file(tmp_path: Path) -> Path:
    """A scenario of tiny photos and a tiny generator."""
    save_family(tmp_path / "tiny.safetensors", tiny_editor(0))
    folder = write_photos(tmp_path / "photos", tiny_faces(30))
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"""\
name: tiny
precision: float32
generator: {tmp_path / "tiny.safetensors"}
faces: {{source: folder, path: {folder}, size: {TINY_SIZE}, counts: {{defender: 8, attacker: 8, evaluation: 8}}}}
defenders:
  mine: {{kind: found, epsilon: 0.1, feature_steps: 1}}
  each: {{kind: found, per_image: true, per_image_steps: 2}}
attackers:
  one: {{collect: {{photos: 2}}}}
  two: {{collect: {{photos: 2}}}}
"""
    )
    return path


def test_packaged_armour_plays_as_in_the_scenario(scenario_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGED", scenario_file)
    armour = packaged_armour("found", 0.05)
    assert armour.defender.config.epsilon == 0.05
    assert armour.defender.config.feature_steps == 1  # type: ignore[attr-defined]
    assert armour.size == TINY_SIZE
    faces = armour.face_set(tiny_faces(3).pixels_BCHW, ("a#0", "a#1", "b#0"))
    steps = armour.perturb(faces) * 127.5
    assert steps.shape == (1, 3, TINY_SIZE, TINY_SIZE)
    assert steps.abs().max() == 6
    again = packaged_armour("found", 0.05)
    assert torch.equal(again.perturb(faces) * 127.5, steps)
    assert packaged_armour("none", 0.05).perturb(faces).abs().max() == 0


@pytest.mark.parametrize(("kind", "epsilon", "words"), [("fond", 0.05, "found"), ("found", -1.0, "epsilon")])
def test_packaged_armour_refuses(
    kind: str, epsilon: float, words: str, scenario_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PACKAGED", scenario_file)
    with pytest.raises(UserError, match=words):
        packaged_armour(kind, epsilon)


def test_labels_are_what_the_generators_classifier_sees(scenario_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGED", scenario_file)
    armour = packaged_armour("none", 0.0)
    photos = tiny_faces(12, seed=5)
    faces = armour.face_set(photos.pixels_BCHW, photos.ids)
    hair = [faces.attributes.index(name) for name in HAIR]
    assert (faces.labels_BA[:, hair].sum(1) == 1).all()
    with torch.inference_mode():
        logits = known(armour).parts["classifier"](photos.images()).numpy()
    male = faces.attributes.index("Male")
    assert (faces.labels_BA[:, male] == (logits[:, male] > 0)).all()


@pytest.fixture
def run(scenario_file: Path, tmp_path: Path) -> Path:
    """A run of which two rounds of one match are finished."""
    root = tmp_path / "run"
    scenario = Scenario.load(scenario_file)
    directory = RunDirectory.create(root, scenario)
    directory.close()
    manifest = Manifest(root / "manifest.jsonl")
    for match, universal in (("mine-vs-one-s0", True), ("each-vs-one-s0", False)):
        for r in (1, 2):
            w = np.full((1, 3, TINY_SIZE, TINY_SIZE), 0.04 * r, np.float32)
            files = {
                f"perturbations/{match}/round-{r:03d}.safetensors": {"defence.w": w} if universal else {},
                f"checkpoints/{match}/round-{r:03d}.safetensors": {
                    f"G.{name}": value for name, value in tiny_editor(r).tensors().items()
                },
            }
            for name, tensors in files.items():
                write_tensors(root / name, tensors | {"published": np.zeros(1, np.uint8)})
            digests = {name: file_digest(root / name) for name in files}
            defender = match.split("-")[0]
            manifest.append(Entry(match, 0, defender, "one", r, digests, {}, 8, 4, None))
    return root


def test_learned_armour_is_that_of_the_last_round(run: Path) -> None:
    faces = tiny_faces(2)
    assert (learned_armour(run, "mine", "one", None).perturb(faces) * 127.5 == 10).all()
    assert (learned_armour(run, "mine", "one", 0.05).perturb(faces) * 127.5 == 6).all()
    assert (learned_armour(run, "mine", "one", 0.5).perturb(faces) * 127.5).max() == 10


def test_a_per_image_defence_uses_the_generator_it_was_learned_against(run: Path) -> None:
    armour = learned_armour(run, "each", "one", None)
    assert array_digest(known(armour).tensors()) == array_digest(tiny_editor(1).tensors())
    photos = tiny_faces(3)
    faces: FaceSet = armour.face_set(photos.pixels_BCHW, photos.ids)
    w = armour.perturb(faces)
    assert w.shape == (3, 3, TINY_SIZE, TINY_SIZE)
    assert not torch.equal(w[0], w[1])
    assert (w * 127.5).abs().max() == 6


def test_a_defence_that_knew_the_first_generator_uses_that_one(run: Path) -> None:
    path = run / "scenario.yaml"
    assert "knowledge: last_round" in path.read_text()
    path.write_text(path.read_text().replace("knowledge: last_round", "knowledge: initial"))
    armour = learned_armour(run, "each", "one", None)
    assert array_digest(known(armour).tensors()) == array_digest(tiny_editor(0).tensors())


def test_the_first_round_was_learned_against_the_packaged_generator(run: Path) -> None:
    path = run / "manifest.jsonl"
    lines = [line for line in path.read_text().splitlines() if '"round": 1' in line]
    path.write_text("\n".join(lines) + "\n")
    armour = learned_armour(run, "mine", "one", None)
    assert array_digest(known(armour).tensors()) == array_digest(tiny_editor(0).tensors())
    assert (armour.perturb(tiny_faces(2)) * 127.5 == 5).all()


@pytest.mark.parametrize(
    ("defender", "attacker", "words"),
    [
        (None, "one", "several defenders.*mine, each.*--defender"),
        ("mine", None, "several attackers.*one, two.*--attacker"),
        ("yours", "one", "no defender 'yours'; it has: mine, each"),
        ("mine", "two", "no finished round.*resume"),
    ],
)
def test_learned_armour_refuses(defender: str | None, attacker: str | None, words: str, run: Path) -> None:
    with pytest.raises(UserError, match=words):
        learned_armour(run, defender, attacker, None)


def test_a_changed_file_is_refused(run: Path) -> None:
    path = run / "perturbations" / "mine-vs-one-s0" / "round-002.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match=r"round-002\.safetensors: differs"):
        learned_armour(run, "mine", "one", None)
    with pytest.raises(UserError, match="not a run directory"):
        learned_armour(run / "tables", "mine", "one", None)
