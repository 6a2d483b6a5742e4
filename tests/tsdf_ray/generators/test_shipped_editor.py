"""The shipped editor on held-out photos of the packaged sample, by the independent judge."""

from __future__ import annotations

import pytest

from tsdf_ray.faces import HAIR, Counts, FacesConfig, load_splits
from tsdf_ray.generators import load_family
from tsdf_ray.generators.weights import PACKAGED
from tsdf_ray.judges import load_judge
from tsdf_ray.metrics import Evaluator, Stage


@pytest.fixture(scope="module")
def rows() -> object:
    family = load_family("editor-128").freeze()
    counts = Counts(defender=1, attacker=1, evaluation=256)
    held_out = load_splits(FacesConfig(counts=counts), 0, family.attributes).evaluation
    evaluator = Evaluator(load_judge("judge-128", held_out.attributes), {}, held_out, family, precision="bfloat16")
    return evaluator.clean_rows(Stage(0, 0, "reference", model="none"), family).to_pandas()


def test_edits_succeed_and_leave_alone_what_they_should(rows: object) -> None:
    table = rows  # a data frame
    success = table[table.metric == "edit_success"]  # type: ignore[attr-defined]
    hair = success[success.edit.isin(HAIR)]["value"].mean()
    sex = success[success.edit == "Male"]["value"].mean()
    identity = table[table.metric == "identity_error"]["value"].mean()  # type: ignore[attr-defined]
    assert hair >= 0.85
    assert sex >= 0.75
    assert identity < 0.08


def test_the_file_is_small() -> None:
    assert (PACKAGED / "editor-128.safetensors").stat().st_size <= 6_000_000
