"""The tables of a search's report, as text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from tsdf_ray.report.tables import duration
from tsdf_ray.scenario.search import Constraint
from tsdf_ray.store.trials import State
from tune.analysis import Measured
from tune.answer import title_of
from tune.front import kept_to
from tune.results import Player, Results
from tune.words import between, described, number, param, params_text, short_names, wish

MOST_ROWS = 500
"""Trials in the page; the Parquet table has all."""


@dataclass(frozen=True)
class Column:
    """One objective or constraint."""

    name: str
    wish: str
    described: str


@dataclass(frozen=True)
class Cell:
    """A setting's value in the search, and in the replay."""

    searched: str
    replayed: str


@dataclass(frozen=True)
class SettingRow:
    """One named setting."""

    title: str
    note: str
    cells: tuple[Cell, ...]
    params: str


@dataclass(frozen=True)
class TrialRow:
    """One trial."""

    label: str
    state: str
    values: tuple[str, ...]
    params: tuple[str, ...]
    rounds: int
    seconds: float
    reason: str


def columns(results: Results) -> list[Column]:
    """Objectives and constraints."""
    found = []
    for name, (what, better) in results.measures.items():
        found.append(Column(name, wish(what) if isinstance(what, Constraint) else better, described(what)))
    return found


def setting_row(results: Results, player: Player) -> SettingRow:
    """A best setting, a start point or a baseline."""
    names = short_names(results.search.parameters)
    note = {"best": "", "start": "start point", "baseline": "baseline"}[player.kind]
    params = "as in the scenario"
    if player.trial:
        params = params_text(player.trial.params, names)
        file = results.file_of(player.trial) if player.kind == "best" else None
        notes = [note, file or "", "" if player.trial.state == "complete" else player.trial.state]
        note = ", ".join(text for text in notes if text)
    if player.kind != "best" and player.searched and not results.keeps(player):
        note += ", breaks a constraint"
    cells = []
    for name, (what, _) in results.measures.items():
        before, after = player.searched.get(name), player.replayed.get(name)
        cells.append(Cell(_text(what.metric, before) or "–", _text(what.metric, after)))
    return SettingRow(title_of(player), note, tuple(cells), params)


def _text(metric: str, value: Measured | None) -> str:
    """'81.0 % (76.0–85.1 %)', or the reason; nothing where it was not played."""
    if value is None:
        return ""
    if value.value is None:
        return f"– ({value.reason})"
    span = between(metric, value)
    return number(metric, value.value) + (f" ({span})" if span else "")


def trial_rows(results: Results) -> list[TrialRow]:
    """The first trials, by number."""
    rows = []
    for trial in results.trials[:MOST_ROWS]:
        values = results.values(trial)
        texts = [number(what.metric, values.get(name)) for name, (what, _) in results.measures.items()]
        params = [param(trial.params[path]) if path in trial.params else "" for path in results.search.parameters]
        label = f"{trial.number}, {trial.point}" if trial.point else str(trial.number)
        state = trial.state
        kept = trial.last is None or kept_to(results.search, trial.last)
        shown = state if kept or state != "complete" else "complete, breaks a constraint"
        rows.append(
            TrialRow(label, shown, tuple(texts), tuple(params), len(trial.rounds), trial.seconds, trial.reason or "")
        )
    return rows


def counted(results: Results) -> str:
    """'24 trials: 15 complete, 8 pruned, 1 failed'."""
    states = Counter(trial.state for trial in results.trials)
    order: tuple[State, ...] = ("complete", "pruned", "failed", "running")
    said = [f"{states[state]} {state.replace('running', 'not ended')}" for state in order if states[state]]
    total = len(results.trials)
    return f"{total} trial{'' if total == 1 else 's'}" + (f": {', '.join(said)}" if said else "")


def failures(results: Results) -> list[tuple[str, str]]:
    """Trials that failed, with the reason."""
    return [(t.label, t.reason or "no reason given") for t in results.trials if t.state == "failed"]


def gaps(results: Results) -> list[tuple[str, str]]:
    """What the page could show but does not, with the reason."""
    rows = [(name.capitalize(), reason) for name, reason in results.notes.items()]
    rows += [(f"Importance of {name}", f.reason) for name, f in results.importances.items() if f.reason]
    drawn, why = results.map_
    if reason := why or (drawn.reason if drawn else None):
        rows.append(("Map" if drawn is None else "Surface of the map", reason))
    missing = {
        f"Interval of {name}, replay": cell.note
        for player in results.players
        for name, cell in player.replayed.items()
        if cell.note
    }
    return rows + list(missing.items())


def facts(results: Results) -> list[tuple[str, str]]:
    """How the search was made, as label and text."""
    search, info = results.search, results.info
    seeds = search.seeds or results.scenario.seeds
    started, seconds = info.get("started"), info.get("seconds")
    of_trials = sum(trial.seconds for trial in results.trials)
    scheduler = search.scheduler
    asha = f"asha, by {search.rung_objective}, grace {scheduler.grace}, reduction {scheduler.reduction:g}"
    rows = [
        ("Status", str(info.get("status", "unknown"))),
        ("Trials", f"{counted(results)}; at most {search.trials}"),
        ("Seeds of a trial", ", ".join(str(seed) for seed in seeds)),
        ("Seeds of the replay", ", ".join(str(seed) for run in results.replays[:1] for seed in run.seeds)),
        ("Started", datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M UTC") if started else ""),
        ("Duration", duration(seconds) if seconds else ""),
        ("Time of all trials", duration(of_trials)),
        ("Sampler", f"{search.sampler.kind}, seed {search.sampler.seed}"),
        ("Scheduler", asha if scheduler.kind == "asha" else "none: every trial plays all rounds"),
        ("Storage", _storage(search.storage)),
        ("TensorBoard", "tensorboard --logdir DIR, where DIR is this folder"),
        ("Machine", ", ".join(f"{key} {value}" for key, value in (info.get("machine") or {}).items() if value)),
        ("Versions", ", ".join(f"{key} {value}" for key, value in (info.get("versions") or {}).items())),
        ("Scenario SHA-256", str(info.get("digest", ""))),
    ]
    return [(label, text) for label, text in rows if text]


def _storage(kind: str) -> str:
    if kind == "memory":
        return "in memory; with `search.storage: sqlite` optuna-dashboard could open it"
    where = "sqlite:///DIR/optuna.db" if kind == "sqlite" else "DIR/optuna.journal"
    return f"{kind}; open it with: optuna-dashboard {where}, where DIR is this folder"
