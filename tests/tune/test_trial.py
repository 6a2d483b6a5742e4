"""One trial without Ray: two seeds in step, round by round, and what becomes of it when something goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny_search import CHOICE, FRACTION, PAPER, TAU, content, search_of, section

import tsdf_ray.api as api
from tsdf_ray.errors import MatchFailed, UserError
from tsdf_ray.faces import Splits
from tsdf_ray.game.materials import Materials, load_materials
from tsdf_ray.generators import load_family
from tsdf_ray.kept import KEPT
from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search import Objective
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.run import Run
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.store.trials import Report, Trial
from tune import trial as trial_module
from tune.best import setting_scenario
from tune.outcome import Outcome
from tune.trainable import TrialTrainable, trial_folder, trial_scenario
from tune.trial import BULKY, MatchTrial, Setting

OBJECTIVES = {"protection": {"metric": "protection"}, "psnr": {"metric": "psnr", "rounds": "mean"}}
PARAMS = {FRACTION: 0.25, TAU: 0.05, CHOICE: "weakest"}


@pytest.fixture(scope="module")
def game() -> Scenario:
    return Scenario.model_validate(content(search=section(objectives=OBJECTIVES, seeds=[0, 1])))


@pytest.fixture(scope="module")
def materials(game: Scenario) -> dict[int, Materials]:
    scenario = trial_scenario(game, 0, PARAMS)
    return {seed: load_materials(scenario, seed) for seed in scenario.seeds}


@pytest.fixture(scope="module")
def setting(game: Scenario, materials: dict[int, Materials], tmp_path_factory: pytest.TempPathFactory) -> Setting:
    root = tmp_path_factory.mktemp("trial") / "0000"
    return Setting(root, trial_scenario(game, 0, PARAMS), search_of(game), materials)


def log(root: Path) -> list[tuple[str, int]]:
    return [(entry.match, entry.round) for entry in Manifest(root / "manifest.jsonl").entries]


@pytest.fixture(scope="module")
def unbroken(setting: Setting) -> list[Outcome]:
    """A whole trial: its two outcomes."""
    playing = MatchTrial(setting)
    outcomes = [playing.step()]
    assert log(setting.root) == [("tsdf-vs-mtcnn-s0", 1), ("tsdf-vs-mtcnn-s1", 1)], "both seeds, one round"
    outcomes.append(playing.step())
    playing.close()
    return outcomes


def same(one: Report | None, other: Report | None) -> bool:
    """But for the time it took."""
    assert one is not None
    assert other is not None
    return replace(one, seconds=0.0) == replace(other, seconds=0.0)


def test_two_seeds_go_in_step(setting: Setting, unbroken: list[Outcome]) -> None:
    assert [outcome.round for outcome in unbroken] == [1, 2]
    assert [outcome.failed for outcome in unbroken] == [None, None]
    assert log(setting.root) == [(f"tsdf-vs-mtcnn-s{seed}", round) for round in (1, 2) for seed in (0, 1)]
    assert Run(setting.root).status == "complete"


def test_a_report_is_the_mean_over_seeds(setting: Setting, unbroken: list[Outcome]) -> None:
    """Counted here from the rows of photos, and from the summary that a run of its own would have."""
    report = unbroken[1].report
    assert report is not None
    rows = pq.read_table(setting.root / "tables/images.parquet").to_pylist()
    psnr = [row["value"] for row in rows if row["metric"] == "psnr" and row["phase"] == "visibility"]
    assert report.values["psnr"] == pytest.approx(sum(psnr) / len(psnr), rel=1e-6)
    assert report.violations == {"visible": pytest.approx(25 - report.metrics["tsdf/mtcnn"]["psnr"])}
    cells = Run(setting.root).summary["pairs"]["tsdf/mtcnn"]
    assert report.values["protection"] == cells["protection"][1]["value"]
    assert report.metrics["tsdf/mtcnn"]["duq.retinaface"] == cells["duq"]["retinaface"][1]["value"]
    first = unbroken[0].report
    assert first is not None
    assert first.values["protection"] == cells["protection"][0]["value"], "of what was known then"
    assert first.seconds > 0
    json.dumps(vars(report), allow_nan=False)


def test_it_is_what_play_makes_of_it(game: Scenario, setting: Setting, unbroken: list[Outcome], tmp_path: Path) -> None:
    run = api.play(setting.scenario, tmp_path / "run", executor="inprocess", report=False)
    assert run.images.equals(pq.read_table(setting.root / "tables/images.parquet"))
    assert run.metrics.equals(pq.read_table(setting.root / "tables/metrics.parquet"))
    assert run.summary["pairs"] == Run(setting.root).summary["pairs"]


def test_bulky_folders_are_gone_at_the_end(setting: Setting, unbroken: list[Outcome]) -> None:
    left = {path.name for path in setting.root.iterdir()}
    assert not left & set(BULKY)
    assert {"parts", "tables", "manifest.jsonl", "summary.json", "scenario.yaml"} <= left


def test_a_finished_trial_can_be_measured_again(setting: Setting, unbroken: list[Outcome]) -> None:
    """Killed after its end and before the table knew: nothing is played."""
    for reported in (0, 1):
        playing = MatchTrial(replace(setting, reported=reported))
        before = log(setting.root)
        again = playing.step()
        playing.close()
        assert same(again.report, unbroken[reported].report), "as it was after that round, though more is on disk"
        assert log(setting.root) == before


def test_taken_up_again_it_says_the_same(
    setting: Setting, unbroken: list[Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left between the two matches of round 2, by a process that then died."""
    here = replace(setting, root=tmp_path / "0000")
    playing = MatchTrial(here)
    assert same(playing.step().report, unbroken[0].report)
    playing._play_one(playing._matches[0])
    playing.close()
    assert len(log(here.root)) == 3
    assert {path.name for path in here.root.iterdir()} >= set(BULKY)
    again = MatchTrial(replace(here, reported=1))
    assert same(again.step().report, unbroken[1].report)
    again.close()
    assert log(here.root)[3:] == [("tsdf-vs-mtcnn-s1", 2)], "what was there is not played again"


class Fake:
    """In place of `play_rounds`: what happens in which round of which seed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, trouble: dict[tuple[int, int], Exception]) -> None:
        self._trouble = trouble
        self._real = trial_module.play_rounds
        monkeypatch.setattr(trial_module, "play_rounds", self)

    def __call__(self, match: Any, materials: Any, table: Any) -> Iterator[int]:
        real = self._real(match, materials, table)
        round = table.recorder.standing(match, materials).round
        while True:
            round += 1
            if (match.seed, round) in self._trouble:
                raise self._trouble[match.seed, round]
            try:
                yield next(real)
            except StopIteration:
                return


@pytest.fixture
def one_seed(setting: Setting, tmp_path: Path) -> Setting:
    scenario = setting.scenario.model_copy(update={"seeds": (0,)})
    return replace(setting, root=tmp_path / "0000", scenario=scenario)


def test_a_match_that_fails_is_the_trials_reason(one_seed: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    Fake(monkeypatch, {(0, 2): MatchFailed("tsdf-vs-mtcnn-s0: round 2: loss is not finite")})
    playing = MatchTrial(one_seed)
    first, second = playing.step(), playing.step()
    playing.close()
    assert first.failed is None
    assert second == Outcome(2, None, "tsdf-vs-mtcnn-s0: round 2: loss is not finite")
    assert second.result(done=False, rung=None)["done"] is True
    run = Run(one_seed.root)
    assert run.status == "failed"
    assert run.summary["pairs"]["tsdf/mtcnn"]["psnr"][0]["value"] > 20, "what was finished stays"
    assert not (one_seed.root / "error.txt").exists()


def test_a_user_error_in_a_match_is_the_trials_reason(setting: Setting, tmp_path: Path, monkeypatch: Any) -> None:
    Fake(monkeypatch, {(0, 1): UserError("photo 3: is damaged")})
    playing = MatchTrial(replace(setting, root=tmp_path / "0000"))
    assert playing.step() == Outcome(1, None, "photo 3: is damaged")
    playing.close()
    assert Run(tmp_path / "0000").status == "failed"


def test_a_bug_leaves_its_traceback(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Fake(monkeypatch, {(0, 1): ZeroDivisionError("by zero")})
    playing = MatchTrial(replace(setting, root=tmp_path / "0000"))
    assert playing.step().failed == "ZeroDivisionError: by zero (see error.txt in its folder)"
    playing.close()
    text = (tmp_path / "0000" / "error.txt").read_text()
    assert text.startswith("Traceback")
    assert text.rstrip().endswith("ZeroDivisionError: by zero")


def test_an_objective_that_is_missing_is_a_reason(one_seed: Setting) -> None:
    """Without its network there is no LPIPS; the other values are told all the same."""
    objectives = {**one_seed.search.objectives, "gone": Objective.model_validate({"metric": "lpips"})}
    search = one_seed.search.model_copy(update={"objectives": objectives})
    playing = MatchTrial(replace(one_seed, search=search))
    first, last = playing.step(), playing.step()
    playing.close()
    assert first.failed is None, "it may be there later"
    assert first.report is not None
    assert "gone" not in first.report.values
    assert last.failed is not None
    assert last.failed.startswith("not measured: gone: tsdf/mtcnn: lpips")
    assert last.report is not None
    assert set(last.report.values) == {"protection", "psnr"}


def test_a_folder_that_was_never_whole_is_replaced(setting: Setting, tmp_path: Path) -> None:
    """Killed while it was being made: no run.json."""
    here = replace(setting, root=tmp_path / "0000")
    here.root.mkdir()
    (here.root / "scenario.yaml").write_text("name: half")
    (here.root / "lock").write_text("1")
    playing = MatchTrial(here)
    playing.close()
    assert (here.root / "run.json").exists()
    assert Scenario.load(here.root / "scenario.yaml").digest == here.scenario.digest


def test_one_process_at_a_time(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "LOCK_SECONDS", 0.6)
    here = replace(setting, root=tmp_path / "0000")
    first = MatchTrial(here)
    with pytest.raises(UserError, match="another process"):
        MatchTrial(here)
    first.close()
    MatchTrial(here).close()


def ids(splits: Splits) -> set[str]:
    return {name for part in (splits.defender, splits.attacker, splits.evaluation) for name in part.ids}


def test_nobody_held_out_is_in_a_trial(game: Scenario, materials: dict[int, Materials], setting: Setting) -> None:
    """The replay judges on people that no trial, of whatever seed, has seen."""
    replayed = setting_scenario(game, Trial(0, dict(PARAMS), None, 0.0))
    fresh = [load_materials(replayed, seed).splits for seed in replayed.seeds]
    judged = {name for splits in fresh for name in splits.evaluation.ids}
    seen = {name for one in materials.values() for name in ids(one.splits)}
    assert len(judged) >= 6
    assert not judged & seen
    whole = load_materials(game.model_copy(update={"search": None}), 0).splits
    assert whole.evaluation.ids != materials[0].splits.evaluation.ids, "without a search nobody is held out"


def test_nobody_held_out_is_in_its_tables(
    game: Scenario, materials: dict[int, Materials], setting: Setting, unbroken: list[Outcome]
) -> None:
    table = pq.read_table(setting.root / "tables/images.parquet")
    shown = {name for name in table.column("photo").to_pylist() if name}
    assert shown
    assert shown <= {name for one in materials.values() for name in ids(one.splits)}


class Nothing:
    """A play that counts."""

    closed = 0

    def __init__(self, setting: Setting) -> None:
        self.setting, self.round = setting, setting.reported

    def step(self) -> Outcome:
        self.round += 1
        values = {"protection": 0.5, "psnr": 30.0}
        return Outcome(self.round, Report(self.round, values, {"visible": -5.0}, {}, 0.0))

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def trainable(game: Scenario, tmp_path: Path) -> Iterator[Any]:
    """A trainable in this process, as Tune would build it."""
    RunDirectory.create(tmp_path / "search", game, kind="search").close()
    made = TrialTrainable.__new__(TrialTrainable)
    root = str(tmp_path / "search")
    config = {"trial": 4, "params": PARAMS, "reported": 1}
    made.setup(config, root=root, scenario_json=game.as_json(), materials={}, play=Nothing)
    yield made
    KEPT.resize(0)


def test_a_trainable_goes_on_after_the_reported_rounds(trainable: Any, tmp_path: Path, game: Scenario) -> None:
    result = trainable.step()
    assert (result["round"], result["done"], result["failed"]) == (2, True, "")
    assert result["rung"] == 0.5
    setting = trainable._play.setting
    assert setting.root == trial_folder(tmp_path / "search", 4) == tmp_path / "search" / "trials" / "0004"
    assert setting.scenario == trial_scenario(game, 4, PARAMS)
    assert setting.scenario.name == "tiny/trial-4"


def test_a_trainable_takes_the_next_trial(trainable: Any, tmp_path: Path) -> None:
    trainable.step()
    before = Nothing.closed
    assert trainable.reset_config({"trial": 5, "params": {**PARAMS, FRACTION: 0.75}, "reported": 0})
    assert Nothing.closed == before + 1, "the one before is left"
    result = trainable.step()
    assert (result["round"], result["done"]) == (1, False)
    assert trainable._play.setting.scenario.model_dump()["defenders"]["tsdf"]["share"]["fraction"] == 0.75
    (tmp_path / "checkpoint").mkdir()
    trainable.save_checkpoint(str(tmp_path / "checkpoint"))
    note = json.loads((tmp_path / "checkpoint/trial.json").read_text())
    assert note == {"folder": str(tmp_path / "search/trials/0005")}


def test_values_that_give_no_scenario_fail_with_their_reason(trainable: Any, tmp_path: Path) -> None:
    """Each alone is good, and the check tries no combinations; the search goes on."""
    trainable.reset_config({"trial": 6, "params": {**PARAMS, FRACTION: 7.0}, "reported": 0})
    result = trainable.step()
    assert result["done"] is True
    assert "these values together give no valid scenario" in result["failed"]
    assert "fraction" in result["failed"]
    trainable.reset_config({"trial": 7, "params": PARAMS, "reported": 0})
    assert trainable.step()["failed"] == ""


def test_a_folder_that_is_not_shared_is_told(game: Scenario, tmp_path: Path) -> None:
    made = TrialTrainable.__new__(TrialTrainable)
    config = {"trial": 0, "params": PAPER, "reported": 0}
    made.setup(config, root=str(tmp_path / "elsewhere"), scenario_json=game.as_json(), play=Nothing)
    KEPT.resize(0)
    assert "must be a folder that all machines share" in made.step()["failed"]


def test_a_searched_generator_brings_its_own_materials(tmp_path: Path) -> None:
    """G_0 and the labels of photos are those of the generator a trial plays, not those of the scenario's."""
    faces = {"source": "sample", "size": 128, "counts": {"defender": 2, "attacker": 16, "evaluation": 2}}
    parameters = {"generator": {"kind": "choice", "values": ["editor-128", "attgan-128"]}}
    game = Scenario.model_validate(content(faces=faces, search=section(parameters=parameters, constraints={})))
    RunDirectory.create(tmp_path / "search", game, kind="search").close()
    made = TrialTrainable.__new__(TrialTrainable)
    shared = {0: load_materials(trial_scenario(game, 0, {}), 0)}
    config = {"trial": 0, "params": {"generator": "editor-128"}, "reported": 0}
    made.setup(config, root=str(tmp_path / "search"), scenario_json=game.as_json(), materials=shared, play=Nothing)
    KEPT.resize(0)
    assert made._setting().materials is shared
    made.reset_config({**config, "params": {"generator": "attgan-128"}})
    own = made._setting()
    assert load_family("attgan-128").tensors().keys() == own.materials[0].generator.keys()
    assert own.materials[0].generator.keys() != shared[0].generator.keys()
