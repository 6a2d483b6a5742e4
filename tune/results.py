"""A search as its report reads it: the files of the search's folder, and what they say of a setting under each name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tsdf_ray.errors import UserError
from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search import Measure, SearchConfig
from tsdf_ray.store.rundir import read_info
from tsdf_ray.store.trials import Trial, TrialsTable
from tune.analysis import Better, Measured, Pairs, better_of, constrained_value, measured, violation
from tune.best import label_of
from tune.front import best_trials, front_of
from tune.importance import Importance, importance
from tune.separation_map import SeparationMap, separation_map

Side = Literal["defenders", "attackers"]


@dataclass(frozen=True)
class Played:
    """An ordinary run inside the search's folder: the baselines, or the replay."""

    root: Path
    summary: dict[str, Any]

    @property
    def pairs(self) -> Pairs:
        """`pairs` of its summary."""
        found: Pairs = self.summary.get("pairs") or {}
        return found

    def players(self, side: Side) -> list[str]:
        """Names on one side, in the order they were played."""
        place = 0 if side == "defenders" else 1
        return list(dict.fromkeys(pair.split("/", 1)[place] for pair in self.pairs))

    def pairs_as(self, side: Side, player: str, name: str) -> dict[str, Any]:
        """The pairs of `player` alone, under the name that the search knows its player by."""
        place, found = (0 if side == "defenders" else 1), {}
        for pair, metrics in self.pairs.items():
            both = pair.split("/", 1)
            if both[place] == player:
                both[place] = name
                found["/".join(both)] = metrics
        return found

    @property
    def seeds(self) -> list[int]:
        """Its seeds."""
        return list(self.summary.get("seeds") or [])


@dataclass(frozen=True)
class Player:
    """A setting with a name of its own: one of the best, a start point or a baseline."""

    name: str
    kind: Literal["best", "start", "baseline"]
    trial: Trial | None
    searched: dict[str, Measured]
    """Objective and constraint -> what the search measured (the baselines: under the search's conditions)."""
    replayed: dict[str, Measured]
    """The same again, on fresh seeds and unseen people. Empty without a replay."""


@dataclass(frozen=True)
class Results:
    """Everything the report shows."""

    root: Path
    info: dict[str, Any]
    scenario: Scenario
    search: SearchConfig
    trials: list[Trial]
    baselines: Played | None
    replay: Played | None
    apart: dict[str, Played] = field(default_factory=dict)
    """Setting -> its replay, where each has its own."""
    notes: dict[str, str] = field(default_factory=dict)
    """`baselines`, `replay` -> why they are absent."""

    @staticmethod
    def load(root: Path) -> Results:
        """Read a search's folder. Raises UserError when it is none, or when a file of it is damaged."""
        info = read_info(root)
        scenario = Scenario.load(root / "scenario.yaml")
        if scenario.search is None:
            raise UserError(f"{root}: is no search; give the folder that `tsdf-ray tune --out` made")
        notes: dict[str, str] = {}
        runs = {name: _played(root / name, notes) for name in ("baselines", "replay")}
        if scenario.search.replay.seeds == ():
            notes["replay"] = "off: `search.replay.seeds` is empty"
        # Where more than one side is searched, every setting is replayed in a run of its own.
        folders = sorted(path.parent for path in (root / "replay").glob("*/run.json"))
        apart = {folder.name: run for folder in folders if (run := _played(folder, {})) is not None}
        if apart:
            notes.pop("replay", None)
        trials = TrialsTable(root / "trials.jsonl").trials
        known = info, scenario, scenario.search, trials, runs["baselines"], runs["replay"]
        return Results(root, *known, apart, notes)

    @property
    def replays(self) -> list[Played]:
        """The replay, or one per setting."""
        return [self.replay] if self.replay else list(self.apart.values())

    @cached_property
    def side(self) -> Side:
        """Whose parameters are searched."""
        touched = [name.partition(".")[0] for name in self.search.parameters]
        return "attackers" if "attackers" in touched and "defenders" not in touched else "defenders"

    @cached_property
    def player(self) -> str:
        """The name of the searched player in the scenario."""
        names: list[str] = list(getattr(self.scenario, self.side))
        for path in self.search.parameters:
            for name in sorted(names, key=len, reverse=True):
                if path.startswith(f"{self.side}.{name}."):
                    return name
        return names[0]

    @cached_property
    def measures(self) -> dict[str, tuple[Measure, Better]]:
        """Objectives, then constraints: what they measure and which way is better."""
        found: dict[str, tuple[Measure, Better]] = {n: (o, o.direction) for n, o in self.search.objectives.items()}
        for name, constraint in self.search.constraints.items():
            found[name] = (constraint, better_of(constraint))
        return found

    @cached_property
    def best(self) -> tuple[list[Trial], str | None]:
        """The best trials, as many as are replayed; else why there is none."""
        return best_trials(self.search, self.trials, self.search.replay.best)

    @cached_property
    def front(self) -> list[Trial]:
        """Feasible trials that no other beats."""
        return front_of(self.search, self.trials)

    @cached_property
    def importances(self) -> dict[str, Importance]:
        """Objective -> what decides it."""
        return {name: importance(self.search, self.trials, name) for name in self.search.objectives}

    @cached_property
    def map_(self) -> tuple[SeparationMap | None, str | None]:
        """The separation map, or why there is none."""
        return separation_map(self.search, self.trials)

    @cached_property
    def players(self) -> list[Player]:
        """The best settings, the start points that are not among them, and the baselines."""
        best = self.best[0]
        starts = [trial for trial in self.trials if trial.point and trial not in best]
        found = [self._of_trial(trial, "best") for trial in best] + [self._of_trial(trial, "start") for trial in starts]
        taken = {name for player in found for name in (player.name, *_names(player.trial))}
        # A defender that only the replay knows is a baseline that the search's conditions say nothing of.
        runs = [run for run in (self.baselines, self.replay) if run]
        names = dict.fromkeys(name for run in runs for name in run.players(self.side))
        for name in names:
            if name not in taken and not _is_trial(name):
                searched = self._measure(self.baselines, (name,))
                found.append(Player(name, "baseline", None, searched, self._measure(self.replay, (name,))))
        return found

    def _of_trial(self, trial: Trial, kind: Literal["best", "start"]) -> Player:
        searched = {name: Measured(value) for name, value in self.values(trial).items()}
        own = next((self.apart[label] for label in _names(trial) if label in self.apart), None)
        replayed = self._measure_all(own) if own else self._measure(self.replay, _names(trial))
        return Player(label_of(trial), kind, trial, searched, replayed)

    def values(self, trial: Trial) -> dict[str, float]:
        """Objective and constraint -> value after the trial's last round; those without a value are absent."""
        if trial.last is None:
            return {}
        found = {name: trial.last.values[name] for name in self.search.objectives if name in trial.last.values}
        for name, constraint in self.search.constraints.items():
            if name in trial.last.violations:
                found[name] = constrained_value(constraint, trial.last.violations[name])
        return found

    def keeps(self, player: Player) -> bool:
        """Did it keep to every constraint in the search?"""
        found = {name: player.searched.get(name) for name in self.search.constraints}
        return all(
            cell is not None and cell.value is not None and violation(self.search.constraints[name], cell.value) <= 0
            for name, cell in found.items()
        )

    def _measure(self, run: Played | None, names: tuple[str, ...]) -> dict[str, Measured]:
        known = run.players(self.side) if run else []
        name = next((name for name in names if name in known), None)
        if run is None or name is None:
            return {}
        pairs = run.pairs_as(self.side, name, self.player)
        # Over rounds and opponents of the whole run: a worst case over fewer would flatter a setting that met fewer.
        rounds = max(map(_rounds, run.pairs.values()))
        other: Side = "attackers" if self.side == "defenders" else "defenders"
        opponents = tuple(run.players(other))
        found = {}
        for key, (what, better) in self.measures.items():
            met: dict[str, Any] = {} if getattr(what, other) else {other: opponents}
            found[key] = measured(pairs, what.model_copy(update=met), rounds, better)
        return found

    def _measure_all(self, run: Played) -> dict[str, Measured]:
        rounds = max(map(_rounds, run.pairs.values()))
        return {key: measured(run.pairs, what, rounds, better) for key, (what, better) in self.measures.items()}

    def file_of(self, trial: Trial) -> str | None:
        """The scenario of a best trial that plays as it is: its path in the folder, None where none was written."""
        folder = self.root / "best"
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix == ".yaml" and path.stem in _names(trial):
                return path.relative_to(self.root).as_posix()
        return None


def _names(trial: Trial | None) -> tuple[str, ...]:
    """What a trial is called in the replay and in `best/`."""
    if trial is None:
        return ()
    return (f"trial_{trial.number}", *((trial.point,) if trial.point else ()))


def _is_trial(name: str) -> bool:
    return name.startswith("trial_") and name.removeprefix("trial_").isdigit()


def _rounds(metrics: Mapping[str, Any]) -> int:
    """Rounds played: cells that an unfinished match still owes are null at the end."""
    longest = 0
    for series in metrics.values():
        cells = [i for i, cell in enumerate(series, 1) if cell is not None] if isinstance(series, list) else []
        longest = max([longest, *cells])
    return longest


def _played(root: Path, notes: dict[str, str]) -> Played | None:
    path = root / "summary.json"
    if not path.exists():
        notes[root.name] = "not finished yet" if root.exists() else "not played"
        return None
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); restore it from a copy") from error
    if not summary.get("pairs"):
        notes[root.name] = "no match of it has results"
        return None
    return Played(root, summary)
