"""What a search plays: dotted keys, who meets whom, and the scenario of one trial."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdf_ray.errors import UserError
from tsdf_ray.faces import HeldOut
from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.schema import json_schema
from tsdf_ray.scenario.search import Choice
from tsdf_ray.scenario.search_checks import (
    baseline_sides,
    locate,
    option_of,
    real_values,
    resolve_point,
    trial_content,
    trial_sides,
    with_values,
)

V2 = "defenders.tsdf.v2"
names = st.from_regex(r"[a-z][a-z0-9]{0,3}(\.[a-z0-9]{1,3}){0,2}", fullmatch=True)


@pytest.fixture
def content(searched: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(searched)
    return found


def only(content: dict[str, Any], **parameters: dict[str, Any]) -> Scenario:
    """The scenario searched over these parameters alone; `__` stands for a dot."""
    search = {
        "parameters": {key.replace("__", "."): value for key, value in parameters.items()},
        "objectives": {"protection": {"metric": "protection"}},
    }
    return Scenario.model_validate({**content, "search": search})


EPOCHS = {"kind": "int", "low": 1, "high": 4}
PHOTOS = {"kind": "int", "low": 4, "high": 8}
QUALITY = {"kind": "choice", "values": [{"kind": "none"}, {"kind": "jpeg", "quality": 75}]}


def test_a_good_search_is_kept_word_for_word(content: dict[str, Any]) -> None:
    scenario = Scenario.model_validate(content)
    assert scenario.search is not None
    assert scenario.search.parameters.keys() == content["search"]["parameters"].keys()
    again = Scenario.model_validate(yaml.safe_load(scenario.as_yaml()))
    assert again == scenario
    assert again.digest == scenario.digest
    jsonschema.validate(json.loads(scenario.as_json()), json_schema())


def test_what_is_searched_decides_the_digest_and_its_absence_leaves_it(content: dict[str, Any]) -> None:
    whole = Scenario.model_validate(content)
    plain = Scenario.model_validate({key: value for key, value in content.items() if key != "search"})
    more = copy.deepcopy(content)
    more["search"]["trials"] = 7
    assert len({whole.digest, plain.digest, Scenario.model_validate(more).digest}) == 3
    assert Scenario.load("quickstart").digest == "6757b96dcabb066563bba2075cecc4dd8dcc8e15a5f4f966a8e42ee463084346"


def test_a_name_with_dots_is_found() -> None:
    content = {"defenders": {"v1": {"epsilon": 1}, "v1.0": {"epsilon": 2}}, "attackers": {"a": {"steps": [{"x": 1}]}}}
    assert locate(content, "defenders.v1.0.epsilon") == ("defenders", "v1.0", "epsilon")
    assert locate(content, "defenders.v1.epsilon") == ("defenders", "v1", "epsilon")
    assert locate(content, "defenders.v1.share.fraction") == ("defenders", "v1", "share", "fraction")
    assert locate(content, "attackers.a.steps.0.x") == ("attackers", "a", "steps", 0, "x")


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(names, st.dictionaries(names, st.integers(), min_size=1, max_size=3), min_size=1, max_size=4),
    st.data(),
    st.integers(),
)
def test_a_value_is_put_where_its_key_leads_and_nowhere_else(
    players: dict[str, dict[str, int]], data: st.DataObject, value: int
) -> None:
    content = {"defenders": players}
    before = copy.deepcopy(content)
    player = data.draw(st.sampled_from(sorted(players)))
    dotted = f"defenders.{player}.{data.draw(st.sampled_from(sorted(players[player])))}"
    section, name, *rest = locate(content, dotted)
    changed = with_values(content, {dotted: value})
    assert content == before
    assert f"{section}.{name}.{'.'.join(map(str, rest))}" == dotted
    assert len(rest) == 1
    assert changed["defenders"][name].pop(rest[0]) == value
    content["defenders"][str(name)].pop(str(rest[0]))
    assert changed == content


def test_absent_sections_begin_and_shorter_keys_come_first() -> None:
    content: dict[str, Any] = {"attackers": {"a": {"prepare": None}}}
    changed = with_values(
        content, {"attackers.a.prepare.flip": True, "publish.quality": 30, "publish": {"kind": "jpeg"}}
    )
    assert changed == {"attackers": {"a": {"prepare": {"flip": True}}}, "publish": {"kind": "jpeg", "quality": 30}}
    with pytest.raises(UserError, match=r"a\.b is not a section"):
        with_values({"a": {"b": 3}}, {"a.b.c": 1})
    with pytest.raises(UserError, match="a is a list of 1"):
        with_values({"a": [3]}, {"a.1": 1})


def test_who_plays_in_a_trial_and_beside_the_search(content: dict[str, Any]) -> None:
    defended = only(content, defenders__tsdf__v2__epochs=EPOCHS)
    assert trial_sides(defended) == (["tsdf.v2"], ["plain", "other"])
    assert baseline_sides(defended) == [(["found"], ["plain", "other"])]
    attacked = only(content, attackers__other__collect__photos=PHOTOS)
    assert trial_sides(attacked) == (["found", "tsdf.v2"], ["other"])
    assert baseline_sides(attacked) == [(["found", "tsdf.v2"], ["plain"])]
    both = only(content, attackers__other__collect__photos=PHOTOS, defenders__tsdf__v2__epochs=EPOCHS)
    assert trial_sides(both) == (["tsdf.v2"], ["other"])
    assert baseline_sides(both) == []
    all_touched = only(content, defenders__tsdf__v2__epochs=EPOCHS, defenders__found__epochs=EPOCHS)
    assert trial_sides(all_touched) == (["found", "tsdf.v2"], ["plain", "other"])
    assert baseline_sides(all_touched) == []
    for whole in (
        only(content, publish=QUALITY),
        only(content, publish=QUALITY, defenders__tsdf__v2__epochs=EPOCHS),
        only(content, generator={"kind": "choice", "values": ["editor-128", "stargan-128"]}),
    ):
        assert trial_sides(whole) == (["found", "tsdf.v2"], ["plain", "other"])
        assert baseline_sides(whole) == []


def trial(scenario: Scenario, params: dict[str, Any], **changes: Any) -> Scenario:
    given = {"name": "t", "defenders": ["tsdf.v2"], "attackers": ["other"], "seeds": [7], "held_out_use": "rest"}
    return trial_content(scenario, params, **(given | changes))


@settings(max_examples=30, deadline=None)
@given(
    epsilon=st.floats(0.02, 0.1),
    epochs=st.integers(1, 4),
    choice=st.sampled_from(["random", "weakest"]),
    poison=st.sampled_from(["gentle", "rough"]),
    use=st.sampled_from(["rest", "held"]),
)
def test_a_trial_is_the_scenario_with_its_values(
    searched: str, epsilon: float, epochs: int, choice: str, poison: str, use: str
) -> None:
    scenario = Scenario.model_validate(yaml.safe_load(searched))
    assert scenario.search is not None
    taken = {f"{V2}.epsilon": epsilon, f"{V2}.epochs": epochs, f"{V2}.share.choice": choice, f"{V2}.poison": poison}
    made = trial(scenario, real_values(scenario.search, taken), held_out_use=use)
    config = made.defenders["tsdf.v2"].config.model_dump()
    assert (config["epsilon"], config["epochs"], config["share"]["choice"]) == (epsilon, epochs, choice)
    assert config["poison"]["steps"] == {"gentle": 4, "rough": 50}[poison]
    assert made.pairs == [("tsdf.v2", "other")]
    assert (made.name, made.seeds, made.search) == ("t", (7,), None)
    assert made.faces.held_out == HeldOut(share=0.25, use=use)
    assert made.attackers["other"] == scenario.attackers["other"]
    assert (made.rounds, made.evaluation) == (scenario.rounds, scenario.evaluation)


def test_players_keep_the_order_of_the_file(content: dict[str, Any]) -> None:
    scenario = Scenario.model_validate(content)
    made = trial(scenario, {}, defenders=["tsdf.v2", "found"], attackers=["other", "plain"])
    assert made.pairs == scenario.pairs


def test_without_a_replay_nobody_is_held_out(content: dict[str, Any]) -> None:
    content["search"]["replay"] = {"seeds": []}
    assert trial(Scenario.model_validate(content), {}).faces.held_out is None


def test_weights_of_detectors_that_nobody_names_any_more_are_left_out(content: dict[str, Any]) -> None:
    """Those an option alone names may stand in the scenario, and come with it."""
    content["detector_weights"] = {"mtcnn": "mine.safetensors", "s3fd": "s3fd.pth", "dsfd": "dsfd.pth"}
    detectors = {"kind": "choice", "values": [["retinaface"], ["s3fd"]]}
    with pytest.raises(ValueError, match="no player and no evaluation names this detector"):
        only(content, defenders__tsdf__v2__detectors=detectors)
    del content["detector_weights"]["dsfd"]
    scenario = only(content, defenders__tsdf__v2__detectors=detectors)
    key = f"{V2}.detectors"
    assert trial(scenario, {key: ["retinaface"]}).detector_weights == {}
    assert trial(scenario, {key: ["s3fd"]}).detector_weights == {"s3fd": "s3fd.pth"}
    both = trial(scenario, {key: ["s3fd"]}, attackers=["plain"])
    assert both.detector_weights == {"mtcnn": "mine.safetensors", "s3fd": "s3fd.pth"}


def test_values_that_do_not_go_together_are_told(content: dict[str, Any]) -> None:
    scenario = only(
        content,
        publish__kind={"kind": "choice", "values": ["none", "jpeg"]},
        publish__quality={"kind": "int", "low": 30, "high": 90, "when": {"publish.kind": "jpeg"}},
    )
    assert trial(scenario, {"publish.kind": "jpeg", "publish.quality": 40}).publish.model_dump()["quality"] == 40
    assert trial(scenario, {"publish.kind": "none"}).publish.kind == "none"
    with pytest.raises(
        UserError, match=r"t: these values together .*publish\.quality = 40.*publish.quality: unknown key"
    ):
        trial(scenario, {"publish.kind": "none", "publish.quality": 40})


def test_options_by_name_or_value() -> None:
    plain = Choice(kind="choice", values=(2, 2.5, True, "a", None, [1, 2]))
    assert [option_of(plain, value) for value in (2.0, 2.5, True, "a", None, [1, 2])] == [
        2,
        2.5,
        True,
        "a",
        None,
        "[1, 2]",
    ]
    named = Choice(kind="choice", named={"a": "b", "b": {"x": 1}})
    assert option_of(named, "b") == "b", "a name before a value"
    assert option_of(named, {"x": 1}) == "b"
    for absent in (3, False, "c"):
        with pytest.raises(KeyError):
            option_of(plain, absent)


def test_start_points_as_a_sampler_takes_them(content: dict[str, Any]) -> None:
    content["search"]["start"]["points"]["other"][f"{V2}.poison"] = {"steps": 50, "rule": "adam"}
    search = Scenario.model_validate(content).search
    assert search is not None
    assert resolve_point(search, search.start.points["other"]) == {f"{V2}.epochs": 2, f"{V2}.poison": "rough"}
    taken = resolve_point(search, {f"{V2}.epsilon": 0.05, f"{V2}.epochs": 2.0})
    assert [type(value) for value in taken.values()] == [float, int]
    assert real_values(search, {f"{V2}.poison": "gentle"}) == {f"{V2}.poison": {"steps": 4}}
