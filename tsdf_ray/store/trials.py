"""The trials table, the one source of truth of a search: `trials.jsonl`, appended and flushed, read back by `resume`.

Optuna's study and its storage are rebuilt from it, never the other way round. A line is one of

    {"trial": 3, "event": "asked", "params": {...}, "point": "paper" | null, "notes": {...}, "time": ...}
    {"trial": 3, "event": "round", "round": 1, "values": {...}, "violations": {...}, "metrics": {...}, "seconds": ...}
    {"trial": 3, "event": "ended", "state": "complete" | "pruned" | "failed", "reason": ... | null, "time": ...}

and each may come twice (a trial that is taken up again reports again): the first one counts.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tsdf_ray.errors import UserError
from tsdf_ray.store.atomic import append

State = Literal["running", "complete", "pruned", "failed"]
Param = str | int | float | bool | None


@dataclass(frozen=True)
class Report:
    """What a trial said after a round."""

    round: int
    values: dict[str, float]
    """Objective -> value, the mean over seeds. Never NaN: an objective that cannot be computed is left out."""
    violations: dict[str, float]
    """Constraint -> how far it is violated; 0 or less: kept to."""
    metrics: dict[str, dict[str, float | None]]
    """Pair `defender/attacker` -> metric of summary.json (`duq.DETECTOR`) -> value of this round."""
    seconds: float
    """What the round took."""

    @property
    def feasible(self) -> bool:
        """Are all constraints kept to?"""
        return all(violation <= 0 for violation in self.violations.values())


@dataclass
class Trial:
    """One setting and what came of it."""

    number: int
    params: dict[str, Param]
    """Parameter -> value (of choices: the option's name). Those whose condition does not hold are absent."""
    point: str | None
    """Name of the start point it is."""
    started: float
    """Seconds since the epoch."""
    state: State = "running"
    """`running` also when nobody plays it any more: `resume` goes on with it."""
    rounds: list[Report] = field(default_factory=list)
    reason: str | None = None
    """Why it failed, or was cut."""
    ended: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    """The sampler's own, which it needs to go on (generations of NSGA-II)."""

    @property
    def last(self) -> Report | None:
        """After the last round it played."""
        return self.rounds[-1] if self.rounds else None

    @property
    def seconds(self) -> float:
        """What its rounds took."""
        return sum(report.seconds for report in self.rounds)

    @property
    def label(self) -> str:
        """For people: `trial 7`, `trial 0 (paper)`."""
        return f"trial {self.number}" + (f" ({self.point})" if self.point else "")


class TrialsTable:
    """Reads and appends `trials.jsonl`. Thread-safe; one process alone appends (the run's lock sees to it)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._good_bytes = 0
        self.trials: list[Trial] = []
        self._read()

    def _read(self) -> None:
        if not self._path.exists():
            return
        for number, line in enumerate(self._path.read_bytes().splitlines(keepends=True), start=1):
            # A line cut short by a crash was never finished.
            if not line.endswith(b"\n"):
                break
            try:
                self._take(json.loads(line))
            except (ValueError, TypeError, KeyError, IndexError) as error:
                raise UserError(f"{self._path}: line {number} is damaged; restore the file from a copy") from error
            self._good_bytes += len(line)

    def _take(self, line: dict[str, Any]) -> bool:
        """Bring one line in. False when it says what is known already."""
        number, event = line["trial"], line["event"]
        if number < 0:
            raise ValueError(f"trial {number}")
        if event == "asked":
            if number < len(self.trials):
                return False
            if number > len(self.trials):
                raise ValueError(f"trial {number} follows trial {len(self.trials) - 1}")
            self.trials.append(Trial(number, line["params"], line["point"], line["time"], notes=line["notes"]))
            return True
        trial = self.trials[number]
        if trial.state != "running":
            return False
        if event == "round":
            if line["round"] <= len(trial.rounds):
                return False
            if line["round"] != len(trial.rounds) + 1:
                raise ValueError(f"trial {number}: round {line['round']} follows {len(trial.rounds)}")
            keys = ("round", "values", "violations", "metrics", "seconds")
            trial.rounds.append(Report(**{key: line[key] for key in keys}))
        elif event == "ended":
            trial.state, trial.reason, trial.ended = line["state"], line["reason"], line["time"]
        else:
            raise ValueError(f"unknown event {event!r}")
        return True

    def repair(self) -> None:
        """Cut off a torn last line. Only for the process that holds the run's lock."""
        if self._path.exists() and self._path.stat().st_size != self._good_bytes:
            os.truncate(self._path, self._good_bytes)

    def asked(self, params: dict[str, Param], point: str | None, notes: dict[str, Any] | None = None) -> Trial:
        """A new setting."""
        with self._guard:
            number = len(self.trials)
            line = {"trial": number, "event": "asked", "params": params, "point": point, "notes": notes or {}}
            self._append(line | {"time": time.time()})
            return self.trials[number]

    def reported(self, number: int, report: Report) -> bool:
        """A round of a trial; False when it is known."""
        with self._guard:
            return self._append({"trial": number, "event": "round", **vars(report)})

    def ended(self, number: int, state: State, reason: str | None = None) -> bool:
        """The end of a trial; False when it had ended already."""
        line = {"trial": number, "event": "ended", "state": state, "reason": reason, "time": time.time()}
        with self._guard:
            return self._append(line)

    def _append(self, line: dict[str, Any]) -> bool:
        # NaN would make a line that no other JSON reader takes.
        text = json.dumps(line, sort_keys=True, allow_nan=False) + "\n"
        if not self._take(line):
            return False
        try:
            append(self._path, text)
        except BaseException:
            # What is not on disk has not happened.
            self.trials, self._good_bytes = [], 0
            self._read()
            raise
        return True

    def of(self, *states: State) -> list[Trial]:
        """Trials in these states, by number."""
        with self._guard:
            return [trial for trial in self.trials if trial.state in states]
