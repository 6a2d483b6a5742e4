"""The packaged scenarios: each asks a question, and the index tells of each what its file says."""

from __future__ import annotations

import pytest
import yaml

from tsdf_ray import library
from tsdf_ray.scenario import Scenario, packaged_scenarios


@pytest.mark.parametrize("name", packaged_scenarios())
def test_a_file_starts_with_the_question_it_answers(name: str) -> None:
    text = packaged_scenarios()[name].read_text(encoding="utf-8")
    question = yaml.safe_load(text)["title"]
    assert question.endswith("?")
    assert text.splitlines()[0] == f"# {question}"
    assert Scenario.load(name).name == name


def test_the_index_is_that_of_the_files() -> None:
    """After a change: `python -m tsdf_ray.library > index.json`, then move it to scenarios/."""
    from importlib.resources import files

    assert files("scenarios").joinpath("index.json").read_text(encoding="utf-8") == library.build()


def test_entries() -> None:
    found = library.entries()
    assert [entry.name for entry in found] == list(packaged_scenarios())
    smoke = next(entry for entry in found if entry.name == "smoke")
    assert (smoke.name, smoke.question, smoke.needs) == ("smoke", "Does the machinery work?", [])
    assert smoke.cost.matches == 1
