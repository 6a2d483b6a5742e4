"""A scenario keeps its digest through YAML and JSON; its schema and its page say what the models say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdf_ray.errors import UserError
from tsdf_ray.scenario import Scenario, packaged_scenarios
from tsdf_ray.scenario.document import document
from tsdf_ray.scenario.load import load_scenario
from tsdf_ray.scenario.schema import json_schema
from tsdf_ray.scenario.yamlfile import parse_yaml

PAGE = Path(__file__).resolve().parents[3] / "docs" / "scenario.md"

shares = st.floats(0, 1, allow_nan=False)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.]{0,39}", fullmatch=True)
channels = st.one_of(
    st.just({"kind": "none"}),
    st.fixed_dictionaries({"kind": st.just("jpeg"), "quality": st.integers(1, 100)}),
)
levels = st.sampled_from([{}, {"knowledge": "initial"}, {"knowledge": "surrogate", "surrogate": "other.safetensors"}])
defenders = st.one_of(
    st.fixed_dictionaries({"kind": st.sampled_from(["none", "noise"]), "epsilon": shares}),
    st.builds(
        lambda entry, level: entry | level,
        st.fixed_dictionaries(
            {
                "kind": st.sampled_from(["found", "pgd", "cmua", "anti_forgery"]),
                "epsilon": shares,
                "eot": st.lists(channels, max_size=2),
            }
        ),
        levels,
    ),
    st.fixed_dictionaries(
        {"kind": st.just("face_poison"), "detectors": st.sampled_from([["retinaface"], ["mtcnn"]]), "masks": st.just(8)}
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("tsdf"),
            "epsilon": shares,
            "detectors": st.just(["retinaface"]),
            "beta": st.floats(0, 1000),
            "share": st.fixed_dictionaries({"fraction": shares}),
        }
    ),
)
places = st.sampled_from(["prepare", "train", "inference"])
attackers = st.fixed_dictionaries(
    {
        "purify": st.dictionaries(places, st.lists(channels, max_size=2)),
        "collect": st.fixed_dictionaries({"protected": shares}),
    }
)
scenarios = st.fixed_dictionaries(
    {
        "name": st.text(min_size=1, max_size=30),
        "title": st.text(max_size=30),
        "seeds": st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3, unique=True),
        "rounds": st.integers(1, 1000),
        "publish": channels,
        "defenders": st.dictionaries(names, defenders, min_size=1, max_size=3),
        "attackers": st.dictionaries(names, attackers, min_size=1, max_size=2),
    }
)


@settings(max_examples=20, deadline=None)
@given(scenarios)
def test_yaml_and_json_keep_the_digest(content: dict[str, Any]) -> None:
    scenario = Scenario.model_validate(content)
    again = Scenario.model_validate(parse_yaml(scenario.as_yaml(), "played.yaml").content)
    assert again == scenario
    assert again.digest == scenario.digest
    assert again.as_yaml() == scenario.as_yaml()
    assert Scenario.model_validate_json(scenario.as_json()).digest == scenario.digest
    # What resume reads.
    assert Scenario.model_validate(yaml.safe_load(scenario.as_yaml())).digest == scenario.digest


@settings(max_examples=20, deadline=None)
@given(scenarios, st.integers(0, 2**31 - 1))
def test_whatever_decides_the_race_is_in_the_digest(content: dict[str, Any], seed: int) -> None:
    scenario = Scenario.model_validate(content)
    other = Scenario.model_validate(content | {"seeds": [seed]})
    assert (scenario.digest == other.digest) == (scenario.seeds == (seed,))


@pytest.mark.parametrize("name", packaged_scenarios())
def test_packaged_scenario(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.title, "every packaged scenario says what it asks"
    assert Scenario.model_validate(yaml.safe_load(scenario.as_yaml())).digest == scenario.digest
    jsonschema.validate(json.loads(scenario.as_json()), json_schema())


@pytest.mark.parametrize(
    "change",
    [
        {"roundz": 2},
        {"rounds": 0},
        {"defenders": {"a": {"kind": "found", "beta": 5.0}}},
        {"defenders": {"a": {"kind": "found", "epsilon": -0.1}}},
        {"defenders": {"a": {"epsilon": 0.1}}},
        {"defenders": {"a": {"kind": "pgd", "steps": 0}}},
        {"defenders": {"a": {"kind": "found", "knowledge": "all"}}},
        {"defenders": {"a": {"kind": "found", "eot": [{"kind": "jpg"}]}}},
        {"defenders": {}},
        {"publish": {"kind": "jpeg", "quality": 101}},
        {"attackers": {"a": {"prepare": {"crop": "circle"}}}},
    ],
)
def test_schema_and_models_refuse_the_same(change: dict[str, Any]) -> None:
    content = json.loads(load_scenario("quickstart").as_json()) | change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, json_schema())
    with pytest.raises(ValueError, match="validation error"):
        Scenario.model_validate(content)


def test_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_every_key_is_described_and_every_number_bounded() -> None:
    missing: list[str] = []

    def walk(path: str, item: Any) -> None:
        if not isinstance(item, dict):
            return
        for key, below in item.get("properties", {}).items():
            if not below.get("description"):
                missing.append(f"{path}.{key}: no description")
            walk(f"{path}.{key}", below)
        low = {"minimum", "exclusiveMinimum"} & item.keys()
        if item.get("type") in {"integer", "number"} and not low:
            missing.append(f"{path}: no lower bound")
        if item.get("type") == "number" and not {"maximum", "exclusiveMaximum"} & item.keys():
            missing.append(f"{path}: no upper bound")
        for key in ("items", "additionalProperties"):
            walk(path, item.get(key))
        for key in ("anyOf", "oneOf", "prefixItems"):
            for choice in item.get(key, []):
                walk(path, choice)

    schema = json_schema()
    walk("scenario", schema)
    for name, section in schema["$defs"].items():
        walk(name, section)
    assert missing == []


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), (
        "run `python -m tsdf_ray.scenario.document > docs/scenario.md`"
    )


def test_page_names_every_key() -> None:
    text = document()
    schema = json_schema()
    for name, section in [("scenario", schema), *schema["$defs"].items()]:
        for key in section.get("properties", {}):
            assert f"| `{key}` |" in text, f"{name}.{key}"


def test_a_name_with_a_slash_is_refused() -> None:
    with pytest.raises(UserError, match="letters, digits"):
        load_scenario("quickstart", ("defenders.a/b={kind: found}",))
