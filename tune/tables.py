"""The search in files that other programs read: tables/trials.parquet and search.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from tsdf_ray.scenario.search import Choice, Int, Parameter
from tsdf_ray.store.atomic import write_json, write_table
from tsdf_ray.store.trials import Param, Trial
from tune.analysis import Measured
from tune.front import kept_to
from tune.results import Player, Results
from tune.words import param


def write_tables(root: Path) -> None:
    """Write `tables/trials.parquet` and `search.json` into a search's folder, each whole.

    Raises UserError when `root` is no search, or a file of it is damaged.
    """
    results = Results.load(root)
    write_table(root / "tables" / "trials.parquet", trials_table(results))
    write_json(root / "search.json", summary(results))


def trials_table(results: Results) -> pa.Table:
    """One row per trial. Columns: number, state, point, `param.PATH`, `value.NAME`, `violation.NAME`, feasible, rounds,
    `metric.DEFENDER/ATTACKER.NAME` (last round), seconds, reason, started, ended (UTC)."""
    trials, search = results.trials, results.search
    last = [trial.last for trial in trials]
    columns: dict[str, pa.Array] = {
        "number": pa.array([trial.number for trial in trials], pa.int64()),
        "state": pa.array([trial.state for trial in trials], pa.string()),
        "point": pa.array([trial.point for trial in trials], pa.string()),
    }
    for path, parameter in search.parameters.items():
        kind = _type(parameter)
        columns[f"param.{path}"] = pa.array([_typed(trial, path, kind) for trial in trials], kind)
    for name in search.objectives:
        columns[f"value.{name}"] = pa.array([r.values.get(name) if r else None for r in last], pa.float64())
    for name in search.constraints:
        columns[f"violation.{name}"] = pa.array([r.violations.get(name) if r else None for r in last], pa.float64())
    columns["feasible"] = pa.array([kept_to(search, r) if r else None for r in last], pa.bool_())
    columns["rounds"] = pa.array([len(trial.rounds) for trial in trials], pa.int64())
    known = dict.fromkeys((pair, metric) for r in last if r for pair in r.metrics for metric in r.metrics[pair])
    for pair, metric in known:
        cells = [r.metrics.get(pair, {}).get(metric) if r else None for r in last]
        columns[f"metric.{pair}.{metric}"] = pa.array(cells, pa.float64())
    columns["seconds"] = pa.array([trial.seconds for trial in trials], pa.float64())
    columns["reason"] = pa.array([trial.reason for trial in trials], pa.string())
    for name, times in (("started", [t.started for t in trials]), ("ended", [t.ended for t in trials])):
        stamps = [None if time is None else round(time * 1000) for time in times]
        columns[name] = pa.array(stamps, pa.timestamp("ms", tz="UTC"))
    return pa.table(columns)


def _type(parameter: Parameter) -> pa.DataType:
    """Of a parameter's column. Choices are numbers or truth values where all options are; else text."""
    if not isinstance(parameter, Choice):
        return pa.int64() if isinstance(parameter, Int) else pa.float64()
    options = list(parameter.options)
    if all(isinstance(option, bool) for option in options):
        return pa.bool_()
    if any(isinstance(option, bool) or not isinstance(option, int | float) for option in options):
        return pa.string()
    return pa.int64() if all(isinstance(option, int) for option in options) else pa.float64()


def _typed(trial: Trial, path: str, kind: pa.DataType) -> Param:
    """Null where the parameter does not count; the option null is the text `null`."""
    if path not in trial.params:
        return None
    value = trial.params[path]
    if kind == pa.string():
        return value if isinstance(value, str) else repr(value) if isinstance(value, float) else param(value)
    return float(value) if kind == pa.float64() and value is not None else value


def summary(results: Results) -> dict[str, Any]:
    """What search.json says (schema 1)."""
    best, why_none = results.best
    reasons = dict(results.notes)
    reasons |= {"best": why_none} if why_none else {}
    reasons |= {f"importance.{n}": found.reason for n, found in results.importances.items() if found.reason}
    drawn, why_no_map = results.map_
    if reason := why_no_map or (drawn.reason if drawn else None):
        reasons["map"] = reason
    states = ("complete", "pruned", "failed", "running")
    return {
        "schema": 1,
        "scenario": results.scenario.name,
        "status": results.info.get("status"),
        "trials": {state: sum(trial.state == state for trial in results.trials) for state in states},
        "objectives": {name: o.model_dump(mode="json") for name, o in results.search.objectives.items()},
        "constraints": {name: c.model_dump(mode="json") for name, c in results.search.constraints.items()},
        "best": [_trial(results, trial) for trial in best],
        "front": [trial.number for trial in results.front],
        "importance": {name: found.shares for name, found in results.importances.items()},
        "settings": [_setting(player) for player in results.players],
        "reasons": reasons,
    }


def _trial(results: Results, trial: Trial) -> dict[str, Any]:
    last = trial.last
    return {
        "trial": trial.number,
        "point": trial.point,
        "params": trial.params,
        "values": last.values if last else {},
        "violations": last.violations if last else {},
        "file": results.file_of(trial),
    }


def _setting(player: Player) -> dict[str, Any]:
    """Searched against replayed: objectives and constraints by name."""
    return {
        "name": player.name,
        "kind": player.kind,
        "trial": None if player.trial is None else player.trial.number,
        "searched": {name: _cell(value) for name, value in player.searched.items()},
        "replayed": {name: _cell(value) for name, value in player.replayed.items()},
    }


def _cell(value: Measured) -> dict[str, Any]:
    cell: dict[str, Any] = {"value": value.value, "low": value.low, "high": value.high}
    return cell | {key: text for key, text in (("reason", value.reason), ("note", value.note)) if text}
