"""Warm start: finished trials of earlier searches and storages that fit are learned from, others are refused aloud."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from tiny_search import CHOICE, CONSTRAINTS, FRACTION, LR, PARAMETERS, RULE, TAU, TWO, content, report, section

from tsdf_ray.errors import UserError
from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search import SearchConfig
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.store.trials import TrialsTable
from tune.study import Study, open_storage
from tune.warm import earlier_trials

SETTINGS: list[dict[str, Any]] = [
    {FRACTION: 0.1, TAU: 0.02, CHOICE: "random"},
    {FRACTION: 0.9, TAU: 0.03, CHOICE: "weakest"},
    {FRACTION: 0.5, TAU: 0.08, CHOICE: "random"},
]


def searching(**changes: Any) -> SearchConfig:
    return SearchConfig.model_validate(section(**changes))


def learning(root: Path, **changes: Any) -> SearchConfig:
    return searching(start={"runs": [str(root)]}, **changes)


def earlier_run(root: Path, params: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    """A search whose trials are complete, with values 0, 1, ..., and one more of each other state."""
    scenario = Scenario.model_validate(content(search=section(**changes)))
    RunDirectory.create(root, scenario, kind="search").close()
    table, search = TrialsTable(root / "trials.jsonl"), scenario.search
    assert search is not None
    for n, one in enumerate(SETTINGS if params is None else params):
        table.asked(one, None)
        table.reported(n, report(search, 1, 99.0))
        table.reported(n, report(search, 2, float(n), dict.fromkeys(search.constraints, n - 1.5), psnr=30.0 - n))
        table.ended(n, "complete")
    for state in ("pruned", "failed", None):
        trial = table.asked(SETTINGS[0], None)
        table.reported(trial.number, report(search, 1, 50.0))
        if state is not None:
            table.ended(trial.number, state)
    return root


def test_finished_trials_of_a_run_are_learned(tmp_path: Path) -> None:
    root = earlier_run(tmp_path / "run")
    search = learning(root)
    found = earlier_trials(search)
    assert [trial.params for trial in found] == SETTINGS
    assert [trial.values for trial in found] == [[0.0], [1.0], [2.0]], "after the last round"
    assert [trial.constraints for trial in found] == [{"visible": -1.5}, {"visible": -0.5}, {"visible": 0.5}]
    study = Study(search, [], InMemoryStorage(), found)
    assert study.study.best_trial.value == 1.0
    params, _ = study.ask(0, {})
    assert set(params) == set(PARAMETERS), "the numbers of this search begin at 0 all the same"
    study.tell(0, "complete", report(search, 1, 5.0))
    assert study.study.best_trial.user_attrs["trial"] == 0


def test_the_sampler_learns_from_them(tmp_path: Path) -> None:
    """Good settings at a high share only: the first trial of this search is there too, without a random beginning."""
    shares = [(i + 0.5) / 12 for i in range(12)]
    root = earlier_run(tmp_path / "run", [{FRACTION: x, TAU: 0.05, CHOICE: "random"} for x in shares], constraints={})
    search = learning(root, constraints={}, sampler={"kind": "tpe", "startup": 8}, parallel=1)
    study = Study(search, [], InMemoryStorage(), earlier_trials(search))
    nexts = [study.ask(n, {})[0][FRACTION] for n in range(9)]
    assert sorted(map(float, nexts))[4] > 0.6  # type: ignore[arg-type]


def test_order_of_objectives_does_not_matter(tmp_path: Path) -> None:
    root = earlier_run(tmp_path / "run", objectives=dict(reversed(TWO.items())))
    found = earlier_trials(learning(root, objectives=TWO))
    assert [trial.values for trial in found] == [[0.0, 30.0], [1.0, 29.0], [2.0, 28.0]]


@pytest.mark.parametrize(
    "objectives",
    [
        {"protection": {"metric": "protection", "over": "worst", "direction": "minimize"}},
        {"protection": {"metric": "psnr", "over": "worst"}},
        {"protection": {"metric": "protection", "over": "mean"}},
        {"other": {"metric": "protection", "over": "worst"}},
        TWO,
    ],
)
def test_other_objectives_are_refused(tmp_path: Path, objectives: dict[str, Any]) -> None:
    root = earlier_run(tmp_path / "run", objectives=objectives)
    with pytest.raises(UserError) as caught:
        earlier_trials(learning(root))
    assert str(caught.value) == f"search.start.runs: {root}: has other objectives; a sampler cannot learn from them"


def test_constraints_are_taken_over_with_our_bounds(tmp_path: Path) -> None:
    root = earlier_run(tmp_path / "run")
    found = earlier_trials(learning(root, constraints={"visible": {"metric": "psnr", "at_least": 26}}))
    assert [trial.constraints["visible"] for trial in found] == pytest.approx([-0.5, 0.5, 1.5])
    assert [trial.constraints for trial in earlier_trials(learning(root, constraints={}))] == [{}, {}, {}]


@pytest.mark.parametrize(
    "constraints",
    [
        {"visible": {"metric": "ssim", "at_least": 0.9}},
        {"visible": {"metric": "psnr", "at_most": 40}},
        {**CONSTRAINTS, "dim": {"metric": "ssim", "at_least": 0.9}},
    ],
)
def test_other_constraints_are_refused(tmp_path: Path, constraints: dict[str, Any]) -> None:
    root = earlier_run(tmp_path / "run")
    name = list(constraints)[-1]
    with pytest.raises(UserError) as caught:
        earlier_trials(learning(root, constraints=constraints))
    assert str(caught.value) == f"search.start.runs: {root}: did not measure the constraint '{name}' as it is here"


def test_trials_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    wide = {
        FRACTION: {"kind": "uniform", "low": 0.0, "high": 1.0},
        TAU: {"kind": "uniform", "low": 0.0, "high": 0.2},
        CHOICE: {"kind": "choice", "values": ["random", "weakest"]},
    }
    params = [*SETTINGS, {FRACTION: 0.5, TAU: 0.15, CHOICE: "random"}]
    root = earlier_run(tmp_path / "run", params, parameters=wide)
    assert [trial.params for trial in earlier_trials(learning(root))] == SETTINGS
    one = {**PARAMETERS, CHOICE: {"kind": "choice", "values": ["weakest"]}}
    assert [trial.params for trial in earlier_trials(learning(root, parameters=one))] == [SETTINGS[1]]
    whole = {**PARAMETERS, FRACTION: {"kind": "uniform", "low": 0.0, "high": 1.0, "step": 0.5}}
    assert [trial.params for trial in earlier_trials(learning(root, parameters=whole))] == [SETTINGS[2]]


def test_conditions_must_fit_too(tmp_path: Path) -> None:
    parameters: dict[str, Any] = {
        RULE: {"kind": "choice", "values": ["sign", "adam"]},
        LR: {"kind": "loguniform", "low": 1e-4, "high": 1e-1, "when": {RULE: "adam"}},
    }
    free = {RULE: parameters[RULE], LR: {"kind": "loguniform", "low": 1e-4, "high": 1e-1}}
    params = [{RULE: "sign", LR: 1e-3}, {RULE: "adam", LR: 1e-2}]
    root = earlier_run(tmp_path / "run", params, parameters=free)
    found = earlier_trials(learning(root, parameters=parameters))
    assert [trial.params for trial in found] == [params[1]], "the other one has a value that counted for nothing here"


@pytest.mark.parametrize("constraints", [{}, CONSTRAINTS])
def test_nothing_that_fits_is_a_mistake(tmp_path: Path, constraints: dict[str, Any]) -> None:
    root = earlier_run(tmp_path / "run", constraints=constraints)
    other = {"defenders.tsdf.epsilon": {"kind": "uniform", "low": 0.02, "high": 0.1}}
    with pytest.raises(UserError) as caught:
        earlier_trials(learning(root, parameters=other, constraints=constraints))
    assert str(caught.value) == (
        f"search.start.runs: {root}: none of its 3 finished trials has these parameters within these ranges"
        + (", and these constraints" if constraints else "")
    )


def test_a_folder_that_is_no_search(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run directory"):
        earlier_trials(learning(tmp_path))
    RunDirectory.create(tmp_path / "race", Scenario.load("smoke")).close()
    with pytest.raises(UserError, match="is not a search; give a folder that `tsdf-ray tune` made"):
        earlier_trials(learning(tmp_path / "race"))


def stored(storage: Any, name: str = "theirs", values: Any = None, directions: Any = ("maximize",)) -> optuna.Study:
    """A study of somebody else's."""
    study = optuna.create_study(storage=storage, study_name=name, directions=list(directions))
    for n, one in enumerate(SETTINGS):
        trial = study.ask()
        trial.suggest_float(FRACTION, 0.0, 2.0)
        trial.suggest_float(TAU, 0.0, 0.5)
        trial.suggest_categorical(CHOICE, ["weakest", "random", "none"])
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        study.add_trial(
            optuna.trial.create_trial(
                values=[float(n)] if values is None else values[n],
                params=one,
                distributions=trial.distributions,
            )
        )
    return study


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_finished_trials_of_a_storage_are_learned(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "study"
    url = f"sqlite:///{file}" if kind == "sqlite" else f"journal:{file}"
    stored(RDBStorage(url) if kind == "sqlite" else JournalStorage(JournalFileBackend(str(file))))
    found = earlier_trials(searching(start={"storage": url}, constraints={}))
    assert [trial.params for trial in found] == SETTINGS
    assert [trial.values for trial in found] == [[0.0], [1.0], [2.0]]


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_searchs_own_storage_is_one(tmp_path: Path, kind: str) -> None:
    root = earlier_run(tmp_path / "run", storage=kind)
    search = searching(storage=kind)
    Study(search, TrialsTable(root / "trials.jsonl").trials, open_storage(search, root))
    url = f"sqlite:///{root}/optuna.db" if kind == "sqlite" else f"journal:{root}/optuna.journal"
    by_storage, by_run = (earlier_trials(s) for s in (searching(start={"storage": url}), learning(root)))
    for one, other in zip(by_storage, by_run, strict=True):
        assert (one.params, one.values, one.constraints) == (other.params, other.values, other.constraints)
    assert len(by_run) == 3


def test_objectives_of_a_storage_go_by_their_names(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = stored(RDBStorage(url), values=[[30.0, 0.0], [29.0, 1.0], [28.0, 2.0]], directions=["maximize"] * 2)
    search = searching(start={"storage": url}, objectives=TWO, constraints={})
    assert [trial.values for trial in earlier_trials(search)][1] == [29.0, 1.0], "without names, by their places"
    study.set_metric_names(["psnr", "protection"])
    assert [trial.values for trial in earlier_trials(search)] == [[0.0, 30.0], [1.0, 29.0], [2.0, 28.0]]


def test_a_study_that_is_not_ours(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    storage = RDBStorage(url)
    stored(storage, directions=["minimize"])

    def refused(**start: Any) -> str:
        with pytest.raises(UserError) as caught:
            earlier_trials(searching(start={"storage": url, **start}, constraints={}))
        return str(caught.value)

    where = f"search.start.storage: {url}"
    assert refused() == f"{where}: study 'theirs' has other objectives; a sampler cannot learn from them"
    stored(storage, "second")
    assert refused().replace("second, theirs", "theirs, second") == (
        f"{where}: holds 2 studies (theirs, second); name one in search.start.study"
    )
    assert refused(study="third").startswith(f"search.start.study: no study 'third' in {url}; there are: ")
    found = earlier_trials(searching(start={"storage": url, "study": "second"}, constraints={}))
    assert len(found) == 3
    with pytest.raises(UserError, match="none of its 3 finished trials"):
        earlier_trials(searching(start={"storage": url, "study": "second"}))


def test_a_storage_that_cannot_be_read(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/none.db", f"journal:{tmp_path}/none"):
        with pytest.raises(UserError, match=rf"search.start.storage: {re.escape(url)}: cannot be read \(no such file"):
            earlier_trials(searching(start={"storage": url}))
    assert list(tmp_path.iterdir()) == [], "nothing is made by looking"
    (tmp_path / "text").write_text("no database\n" * 100)
    for url in (f"sqlite:///{tmp_path}/text", f"journal:{tmp_path}/text", "gopher://x"):
        with pytest.raises(UserError, match="cannot be read"):
            earlier_trials(searching(start={"storage": url}))
