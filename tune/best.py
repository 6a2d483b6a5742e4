"""The best settings as scenarios of their own, and played again: fresh seeds, people the search never saw.

A searched value is the best of many and so too good (the winner's curse); the replayed one is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsdf_ray.game.control import Progress
from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search_trials import (
    baseline_sides,
    checked,
    one_side,
    real_values,
    setting_content,
)
from tsdf_ray.store.atomic import write_text
from tsdf_ray.store.trials import Trial, TrialsTable
from tune.front import best_trials


def replay_seeds(game: Scenario) -> tuple[int, ...]:
    """As the scenario says, or as many as a trial has, counted on from the largest any part of the search used."""
    search = game.search
    assert search is not None, "only a scenario with a search has a replay"
    if search.replay.seeds is not None:
        return search.replay.seeds
    used = search.seeds or game.seeds
    return tuple(max((*used, *game.seeds)) + 1 + i for i in range(len(used)))


def label_of(trial: Trial) -> str:
    """What a setting is called in files and in the replay: its start point's name, or `trial_7`."""
    return trial.point or f"trial_{trial.number}"


def chosen(game: Scenario, table: TrialsTable) -> list[Trial]:
    """What is replayed: the best settings, then the start points that were played to the end."""
    search = game.search
    assert search is not None, "only a scenario with a search has a best setting"
    best, _ = best_trials(search, table.trials, search.replay.best)
    return [*best, *(t for t in table.of("complete") if t.point is not None and t not in best)]


def write_best(root: Path, game: Scenario, table: TrialsTable) -> list[Path]:
    """best/LABEL.yaml, best first: scenarios that `play` takes as they are. Returns their paths."""
    search = game.search
    assert search is not None, "only a scenario with a search has a best setting"
    paths = []
    for trial in best_trials(search, table.trials, search.replay.best)[0]:
        path = root / "best" / f"{label_of(trial)}.yaml"
        write_text(path, setting_scenario(game, trial).as_yaml())
        paths.append(path)
    return paths


def setting_scenario(game: Scenario, trial: Trial) -> Scenario:
    """One setting as a scenario: replay's seeds and people, every player of the base that a trial plays."""
    search = game.search
    assert search is not None, "only a scenario with a search has settings"
    return setting_content(
        game,
        real_values(search, trial.params),
        name=f"{game.name}/{label_of(trial)}",
        seeds=replay_seeds(game) or search.seeds or game.seeds,
        held_out_use="held",
    )


def replay_scenarios(game: Scenario, table: TrialsTable) -> dict[str, Scenario]:
    """Folder below the search -> scenario. One race of all settings and baselines where one side alone is searched:
    then they meet the same opponents on the same photos, and differences are paired. Else a race per setting."""
    settings = chosen(game, table)
    if not settings or replay_seeds(game) == ():
        return {}
    side = one_side(game)
    if side is None:
        return {f"replay/{label_of(trial)}": setting_scenario(game, trial) for trial in settings}
    content = setting_scenario(game, settings[0]).model_dump(mode="json")
    players: dict[str, Any] = {}
    base = game.model_dump(mode="json")
    for sides in baseline_sides(game):
        players |= {name: base[side][name] for name in sides[("defenders", "attackers").index(side)]}
    for trial in settings:
        own = setting_scenario(game, trial).model_dump(mode="json")[side]
        label = label_of(trial)
        names = {_name(label, player, own): config for player, config in own.items()}
        if names.keys() & players.keys():
            # A start point that is called as a baseline: the report knows a setting by its number too.
            names = {_name(f"trial_{trial.number}", player, own): config for player, config in own.items()}
        players |= names
    content |= {side: players, "name": f"{game.name}/replay", "detector_weights": base["detector_weights"]}
    # Weights of a detector that no setting kept are left out.
    return {"replay": checked(content)}


def _name(label: str, player: str, all_players: Mapping[str, Any]) -> str:
    return label if len(all_players) == 1 else f"{label}.{player}"[:40]


def replay(
    root: Path, game: Scenario, table: TrialsTable, address: str | None, progress: Progress, report: bool
) -> None:
    """Play what `replay_scenarios` says, or go on with it."""
    from tune.search import play_or_resume

    for folder, scenario in replay_scenarios(game, table).items():
        play_or_resume(scenario, root / folder, address, progress, report)
