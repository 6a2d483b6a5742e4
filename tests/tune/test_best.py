"""The best settings as scenarios: they play as they are, are what was searched, and meet whom the search never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_search import CHOICE, FRACTION, PAPER, STEPS, TAU, TWO, content, report, search_of, section

from tsdf_ray.scenario import Scenario
from tsdf_ray.store.trials import Trial, TrialsTable
from tune.best import chosen, label_of, replay_scenarios, replay_seeds, setting_scenario, write_best
from tune.trainable import trial_scenario

SECOND = {
    "collect": {"photos": 8},
    "prepare": {"detectors": ["retinaface"]},
    "retrain": {"train": {"steps": 4, "batch": 4}},
}


def game(**changes: Any) -> Scenario:
    search = section(**{"start": {"points": {"paper": PAPER}}, "seeds": [3, 7], **changes.pop("search", {})})
    return Scenario.model_validate(content(search=search, **changes))


def played(path: Path, scenario: Scenario, settings: list[dict[str, Any]], values: list[float | None]) -> TrialsTable:
    """A table of complete trials; no value: pruned. Start points come first."""
    table, search = TrialsTable(path / "trials.jsonl"), search_of(scenario)
    points = list(search.start.points)
    for n, (params, value) in enumerate(zip(settings, values, strict=True)):
        table.asked(params, points[n] if n < len(points) else None)
        table.reported(n, report(search, 1, value or 0.0))
        if value is not None:
            table.reported(n, report(search, 2, value, psnr=30 - value))
        table.ended(n, "complete" if value is not None else "pruned")
    return table


def shares(*values: float) -> list[dict[str, Any]]:
    return [PAPER, *({FRACTION: value, TAU: 0.02, CHOICE: "weakest"} for value in values)]


@pytest.fixture
def scenario() -> Scenario:
    return game()


@pytest.fixture
def table(tmp_path: Path, scenario: Scenario) -> TrialsTable:
    return played(tmp_path, scenario, shares(0.1, 0.2, 0.3, 0.4, 0.5), [0.1, 0.6, 0.9, None, 0.7, 0.8])


def test_the_best_are_files_that_load(tmp_path: Path, scenario: Scenario, table: TrialsTable) -> None:
    paths = write_best(tmp_path, scenario, table)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "best/trial_2.yaml", "best/trial_5.yaml", "best/trial_4.yaml",
    ]  # fmt: skip
    for path, share in zip(paths, (0.2, 0.5, 0.4), strict=True):
        loaded = Scenario.load(path)
        assert loaded.name == f"tiny/{path.stem}"
        assert loaded.search is None
        entry = loaded.model_dump(mode="json")["defenders"]["tsdf"]
        assert (entry["share"], entry["tau"]) == ({**entry["share"], "fraction": share, "choice": "weakest"}, 0.02)
        assert loaded.seeds == (8, 9)
        assert loaded.faces.held_out is not None
        assert (loaded.faces.held_out.use, loaded.faces.held_out.share) == ("held", 0.5)


def test_the_best_are_what_was_searched(scenario: Scenario, table: TrialsTable) -> None:
    """But for seeds, people and the name."""
    for trial in table.trials:
        replayed, searched = (
            found.model_dump(mode="json")
            for found in (setting_scenario(scenario, trial), trial_scenario(scenario, trial.number, trial.params))
        )
        assert searched["seeds"] == [3, 7]
        assert searched["faces"]["held_out"] == {"share": 0.5, "use": "rest"}
        for found in (replayed, searched):
            found.pop("name")
            found.pop("seeds")
            found["faces"].pop("held_out")
        assert replayed == searched


def test_seeds_are_fresh() -> None:
    assert replay_seeds(game()) == (8, 9), "counted on from the largest"
    assert replay_seeds(game(seeds=[20])) == (21, 22), "whoever used it"
    assert replay_seeds(game(search={"seeds": None}, seeds=[4, 1, 2])) == (5, 6, 7)
    assert replay_seeds(game(search={"replay": {"seeds": [0]}})) == (0,)
    assert replay_seeds(game(search={"replay": {"seeds": []}})) == ()


def test_start_points_that_were_played_are_replayed_too(scenario: Scenario, table: TrialsTable) -> None:
    assert [label_of(trial) for trial in chosen(scenario, table)] == ["trial_2", "trial_5", "trial_4", "paper"]


def test_a_start_point_among_the_best_is_there_once(tmp_path: Path, scenario: Scenario) -> None:
    table = played(tmp_path, scenario, shares(0.5), [0.9, 0.1])
    assert [label_of(trial) for trial in chosen(scenario, table)] == ["paper", "trial_1"]


def test_a_start_point_that_was_pruned_is_not_replayed(tmp_path: Path, scenario: Scenario) -> None:
    table = played(tmp_path, scenario, shares(0.5), [None, 0.1])
    assert [label_of(trial) for trial in chosen(scenario, table)] == ["trial_1"]


def test_what_breaks_a_constraint_is_not_best(tmp_path: Path, scenario: Scenario) -> None:
    table = TrialsTable(tmp_path / "trials.jsonl")
    for n, (value, violation) in enumerate([(0.2, -1.0), (0.9, 0.5)]):
        table.asked({FRACTION: 0.1 * n, TAU: 0.02, CHOICE: "random"}, None)
        table.reported(n, report(search_of(scenario), 1, value, {"visible": violation}))
        table.ended(n, "complete")
    assert [path.stem for path in write_best(tmp_path, scenario, table)] == ["trial_0"]


def test_the_front_of_several_objectives(tmp_path: Path) -> None:
    scenario = game(search={"objectives": TWO, "replay": {"best": 2}})
    table = played(tmp_path, scenario, shares(0.1, 0.2), [1.0, 2.0, 3.0])
    assert {path.stem for path in write_best(tmp_path, scenario, table)} == {"paper", "trial_2"}, "both ends"


def opponents(scenario: Scenario, side: str) -> Any:
    return scenario.model_dump(mode="json")[side]


def test_searched_defenders_meet_in_one_race(scenario: Scenario, table: TrialsTable) -> None:
    found = replay_scenarios(scenario, table)
    assert list(found) == ["replay"]
    race = found["replay"]
    assert race.name == "tiny/replay"
    assert set(race.defenders) == {"trial_2", "trial_5", "trial_4", "paper", "found"}
    assert opponents(race, "defenders")["found"] == opponents(scenario, "defenders")["found"]
    for trial in (table.trials[i] for i in (0, 2, 4, 5)):
        own = opponents(setting_scenario(scenario, trial), "defenders")["tsdf"]
        assert opponents(race, "defenders")[label_of(trial)] == own
    assert opponents(race, "attackers") == opponents(scenario, "attackers")
    assert race.seeds == (8, 9)
    assert race.faces.held_out is not None
    assert race.faces.held_out.use == "held"
    assert race.search is None


def test_a_point_called_as_a_baseline_hides_nobody(tmp_path: Path) -> None:
    scenario = game(search={"start": {"points": {"found": PAPER}}})
    race = replay_scenarios(scenario, played(tmp_path, scenario, shares(0.5), [0.9, 0.1]))["replay"]
    defenders = opponents(race, "defenders")
    assert set(defenders) == {"found", "trial_0", "trial_1"}
    assert defenders["found"]["kind"] == "found"
    assert defenders["trial_0"]["kind"] == "tsdf"


def test_searched_attackers_meet_in_one_race(tmp_path: Path) -> None:
    key = "attackers.mtcnn.retrain.train.steps"
    changed = content()["attackers"] | {"other": SECOND}
    search = {"parameters": {key: {"kind": "int", "low": 1, "high": 8}}, "start": {"points": {"few": {key: 1}}}}
    scenario = game(attackers=changed, search=search)
    table = played(tmp_path, scenario, [{key: 1}, {key: 8}], [0.5, 0.6])
    race = replay_scenarios(scenario, table)["replay"]
    assert set(race.attackers) == {"trial_1", "few", "other"}
    attackers = opponents(race, "attackers")
    steps = {name: attacker["retrain"]["train"]["steps"] for name, attacker in attackers.items()}
    assert steps == {"trial_1": 8, "few": 1, "other": 4}
    assert opponents(race, "defenders") == opponents(scenario, "defenders"), "every one meets all of them"


def test_two_searched_defenders_keep_their_names(tmp_path: Path) -> None:
    unit = {"kind": "uniform", "low": 0, "high": 1}
    both = {FRACTION: unit, "defenders.found.epsilon": {"kind": "uniform", "low": 0.01, "high": 0.1}}
    scenario = game(search={"parameters": both, "start": {}})
    table = played(tmp_path, scenario, [{FRACTION: 0.5, "defenders.found.epsilon": 0.02}], [0.5])
    assert set(replay_scenarios(scenario, table)["replay"].defenders) == {"trial_0.found", "trial_0.tsdf"}


@pytest.mark.parametrize(
    ("key", "parameter", "value"),
    [
        ("attackers.mtcnn.retrain.train.steps", {"kind": "int", "low": 1, "high": 8}, 2),
        ("publish.quality", {"kind": "int", "low": 50, "high": 95}, 75),
        ("publish", {"kind": "choice", "named": {"1": {"kind": "none"}, "2": {"kind": "jpeg", "quality": 50}}}, None),
    ],
)
def test_where_both_sides_change_every_setting_has_a_race(
    tmp_path: Path, key: str, parameter: dict[str, Any], value: int | None
) -> None:
    search = {"parameters": {FRACTION: {"kind": "uniform", "low": 0, "high": 1}, key: parameter}, "start": {}}
    scenario = game(search=search, publish={"kind": "jpeg", "quality": 80})
    one, other = ("1", "2") if value is None else (value, value + 1)
    settings = [{FRACTION: 0.5, key: one}, {FRACTION: 0.25, key: other}]
    table = played(tmp_path, scenario, settings, [0.5, 0.6])
    found = replay_scenarios(scenario, table)
    assert list(found) == ["replay/trial_1", "replay/trial_0"]
    assert found["replay/trial_0"] == setting_scenario(scenario, table.trials[0])
    assert found["replay/trial_0"].seeds == (8, 9)


def test_weights_that_no_setting_needs_any_more_are_left_out(tmp_path: Path) -> None:
    defenders = {"tsdf": {**content()["defenders"]["tsdf"], "detectors": ["centerface"]}}
    parameters = {
        "defenders.tsdf.detectors": {"kind": "choice", "named": {"one": ["retinaface"], "two": ["centerface"]}}
    }
    scenario = game(
        defenders=defenders,
        search={"parameters": parameters, "start": {}},
        detector_weights={"centerface": "mine.safetensors"},
    )
    for option, weights in (("one", {}), ("two", {"centerface": "mine.safetensors"})):
        (tmp_path / option).mkdir()
        table = played(tmp_path / option, scenario, [{"defenders.tsdf.detectors": option}], [0.5])
        race = replay_scenarios(scenario, table)["replay"]
        assert dict(race.detector_weights) == weights


def test_no_replay(tmp_path: Path, scenario: Scenario, table: TrialsTable) -> None:
    off = game(search={"replay": {"seeds": []}})
    assert replay_scenarios(off, table) == {}
    path = write_best(tmp_path / "off", off, table)[0]
    loaded = Scenario.load(path)
    assert loaded.seeds == (3, 7), "then the files have the search's own seeds and people"
    assert loaded.faces.held_out is None
    empty = TrialsTable(tmp_path / "none.jsonl")
    assert replay_scenarios(scenario, empty) == {}
    assert write_best(tmp_path / "none", scenario, empty) == []


def test_names_of_settings() -> None:
    assert label_of(Trial(3, {STEPS: 4}, None, 0.0)) == "trial_3"
    assert label_of(Trial(0, PAPER, "paper", 0.0)) == "paper"
