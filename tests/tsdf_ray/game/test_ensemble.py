"""Several generators in one race: a defender knows more than the attackers', and w is judged on more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import tsdf_ray
from tests.tsdf_ray.game.test_knowledge import SMALL, Spy, content, spy  # noqa: F401 (fixtures)
from tsdf_ray.armour import learned_armour
from tsdf_ray.defenders import Knowledge
from tsdf_ray.defenders.forgeries import Forgeries
from tsdf_ray.digest import array_digest
from tsdf_ray.errors import UserError
from tsdf_ray.faces import FaceSet
from tsdf_ray.game.materials import load_materials
from tsdf_ray.game.players import DefenderRole
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.generators import Family, StarGAN, StarGANConfig, fresh_family, load_family, save_family
from tsdf_ray.scenario import Scenario
from tsdf_ray.testing.linear import LinearFamily
from tsdf_ray.testing.tiny import tiny_faces

LABELS = ("Blond_Hair", "Brown_Hair", "Male")


@pytest.fixture
def other(tmp_path: Path) -> str:
    config = StarGANConfig(
        attributes=LABELS, width=4, blocks=1, image_size=32, discriminator_width=4, discriminator_layers=3
    )
    path = tmp_path / "other.safetensors"
    save_family(path, fresh_family(StarGAN, config, 4, "ensemble"))
    return str(path)


def test_a_defender_knows_its_further_generators_as_they_are_filed(
    spy: type[Spy],  # noqa: F811
    content: dict[str, Any],  # noqa: F811
    other: str,
) -> None:
    seen: list[dict[str, str]] = []

    class Looks(Spy):
        def learn(self, knowledge: Knowledge) -> Any:
            seen.append({name: array_digest(family.tensors()) for name, family in knowledge.generators.items()})
            return super().learn(Knowledge(knowledge.run_seed, knowledge.round, {}, {}, knowledge.photos))

    entry = {"kind": "spy", "generators": [other, content["generator"], other]}
    scenario = Scenario.model_validate(content | {"defenders": {"d": entry}})
    match = MatchSpec(scenario.as_json(), "d", "plain", 0)
    role = DefenderRole(match, load_materials(scenario, 0))
    role._defender = Looks(scenario.defenders["d"].config)
    moved = {name: value + 1 for name, value in load_family(content["generator"]).tensors().items()}
    for round_, generator in ((1, None), (2, moved)):
        with pytest.raises(ValueError, match="not enough values"):  # the spy wants a generator
            role.learn(round_, generator or load_family(content["generator"]).tensors())
    filed = {name: array_digest(load_family(name).tensors()) for name in (other, content["generator"])}
    own = filed[content["generator"]]
    assert seen[0] == {"editor": own, "stargan": filed[other], "editor-2": own, "stargan-2": filed[other]}
    assert seen[1] == seen[0] | {"editor": array_digest(moved)}


def test_each_generator_is_asked_for_edits_of_its_own_attributes() -> None:
    few, all_four = LinearFamily(), LinearFamily()
    few.attributes = LABELS
    asked: list[tuple[str, ...]] = []

    def ask(own_BA: torch.Tensor, names: tuple[str, ...]) -> torch.Tensor:
        asked.append(names)
        return 1 - own_BA

    faces = tiny_faces(4)
    families: dict[str, Family] = {"few": few.freeze(), "all": all_four.freeze(), "again": all_four}
    visit = Forgeries(Knowledge(0, 1, families, {}, faces), faces).visit([2, 0], ask)
    assert sorted(asked) == sorted([LABELS, faces.attributes])  # the two alike share one question
    columns = [faces.attributes.index(name) for name in LABELS]
    assert torch.equal(visit.target["few"], 1 - faces.labels()[[2, 0]][:, columns])
    assert torch.equal(visit.target["all"], 1 - faces.labels()[[2, 0]])
    expected = few.edit(faces.images()[[2, 0]], visit.target["few"])
    torch.testing.assert_close(visit.clean["few"].output_BCHW, expected)


def test_every_w_is_judged_on_the_further_generators(
    content: dict[str, Any],  # noqa: F811
    other: str,
    tmp_path: Path,
) -> None:
    found = {"kind": "found", "generators": [other], "batch": 4, "epsilon": 0.1}
    scenario = Scenario.model_validate(
        content
        | {"defenders": {"d": found, "none": {"kind": "none"}}}
        | {"evaluation": SMALL["evaluation"] | {"generators": [other]}}  # type: ignore[operator]
    )
    run = tsdf_ray.play(scenario, tmp_path / "run", executor="inprocess", report=False)
    rows = pq.read_table(run.path / "tables" / "images.parquet").to_pandas()
    judged = rows[(rows.phase == "transfer") & (rows.metric == "sr_mask")]
    assert set(judged.model) == {"other"}
    assert sorted(set(judged["round"])) == [0, 1, 2]
    assert set(judged.judged_round) == {0}
    assert set(judged.edit) == set(LABELS)
    l2 = rows[(rows.phase == "transfer") & (rows.metric == "l2_mask")].groupby(["defender", "round"])["value"].max()
    assert (l2["none"] == 0).all()
    assert l2["d", 0] == 0
    # Recomputed from what was published: the largest change of round 2 that any photo's edit has.
    assert l2["d", 2] > 0


def test_what_a_run_learned_protects_photos_of_nobody(
    content: dict[str, Any],  # noqa: F811
    other: str,
    tmp_path: Path,
) -> None:
    entry = {"kind": "pgd", "generators": [other], "steps": 1}
    scenario = Scenario.model_validate(content | {"defenders": {"d": entry}})
    run = tsdf_ray.play(scenario, tmp_path / "run", executor="inprocess", report=False)
    armour = learned_armour(run.path, None, None, None)
    faces = armour.face_set(np.full((2, 3, 32, 32), 90, np.uint8), ("a", "b"))
    assert set(LABELS) < set(faces.attributes)
    assert armour.perturb(faces).abs().amax() > 0


def test_a_further_generator_that_cannot_be_is_named(content: dict[str, Any]) -> None:  # noqa: F811
    base = content | {"defenders": {"d": {"kind": "none", "generators": ["nowhere.safetensors"]}}}
    with pytest.raises(UserError, match=r"defenders\.d\.generators: .*no such file"):
        load_materials(Scenario.model_validate(base), 0)
    judged = content | {"defenders": {"d": {"kind": "none"}}, "evaluation": {"generators": ["nowhere.safetensors"]}}
    with pytest.raises(UserError, match=r"evaluation\.generators: .*no such file"):
        load_materials(Scenario.model_validate(judged), 0)


def test_selected_labels_keep_the_photos() -> None:
    faces = tiny_faces(3)
    some = faces.select(("Male", "Black_Hair"))
    assert isinstance(some, FaceSet)
    assert some.pixels_BCHW is faces.pixels_BCHW
    assert some.labels_BA.tolist() == faces.labels_BA[:, [3, 0]].tolist()
    with pytest.raises(UserError, match="no label Young"):
        faces.select(("Young",))
