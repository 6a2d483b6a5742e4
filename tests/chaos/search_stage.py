"""Searches a null game in child processes and kills them: run by the chaos tests as a script of its own.

    python search_stage.py FOLDER [--moments 20] [--seed 1] [--kinds driver actor node] [--storages sqlite journal]
                                  [--parallel 2] [--node-seconds 1.5] [--table]

Each search has 8 trials of 3 rounds under ASHA. It is killed with SIGKILL at a random moment: the driver, the process
of a trial, or Ray's node (the raylet); driver and node are then resumed. A moment is LINES+SECONDS: so long after so
many lines of trials.jsonl. Imports are made once here and forked. Prints one JSON line per kill, with all that is
wrong afterwards, or a Markdown table. With `--parallel 1` the table must equal an unbroken search's: then the sampler
has learned from every finished trial, or it would have asked for other settings.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil

from tsdf_ray.scenario import Scenario
from tsdf_ray.store.rundir import RunDirectory, read_info
from tsdf_ray.store.trials import Param, Report, Trial, TrialsTable
from tune import search as engine
from tune.outcome import Outcome
from tune.study import FILES, STATES, STUDY, Study
from tune.trial import Setting, take
from tune.warm import open_url

SCENARIO = """
name: null-search
seeds: [0]
rounds: 3
faces: {source: sample, size: 64, counts: {defender: 4, attacker: 16, evaluation: 6}}
defenders: {tsdf: {kind: tsdf, detectors: [retinaface]}}
attackers: {mtcnn: {collect: {photos: 4}, prepare: {detectors: [mtcnn]}, retrain: {train: {steps: 1, batch: 4}}}}
evaluation: {detectors: [retinaface], decay: [0.0, 1.0], references: [], resamples: 100, samples: 2}
search:
  parameters:
    defenders.tsdf.share.fraction: {kind: uniform, low: 0.0, high: 1.0}
    defenders.tsdf.tau: {kind: uniform, low: 0.01, high: 0.05}
  objectives: {protection: {metric: protection}}
  constraints: {visible: {metric: psnr, at_least: 30}}
  sampler: {kind: tpe, startup: 2}
  scheduler: {kind: asha, reduction: 2}
  trials: 8
  replay: {seeds: []}
  start: {points: {paper: {defenders.tsdf.share.fraction: 0.5}}}
"""
LINES = 30
"""Of trials.jsonl at the end, about."""
STEP_SECONDS = {"driver": 0.1, "actor": 0.1, "node": 1.5}
"""Processes of trials live on for some 15 seconds without their node, then Ray ends the driver: when less is left to
play, the search ends well before that."""
PATIENCE_SECONDS = 180.0


class NullGame:
    """Waits a little, and reports what the parameters say. What is on disk it does not play again, as `MatchTrial`."""

    def __init__(self, setting: Setting, seconds: float) -> None:
        self._setting = setting
        self._seconds = seconds
        self._round = setting.reported
        self._run = take(setting.root, setting.scenario)
        self._played = setting.root / "played"
        (setting.root / "pid").write_text(str(os.getpid()))

    def step(self) -> Outcome:
        """One round; a line in `played` at its end."""
        self._round += 1
        if lines(self._played) < self._round:
            time.sleep(self._seconds)
            with self._played.open("a") as file:
                file.write(f"{self._round}\n")
        tsdf = self._setting.scenario.model_dump()["defenders"]["tsdf"]
        return Outcome(self._round, expected(tsdf["share"]["fraction"], tsdf["tau"], self._round))

    def close(self) -> None:
        """Give the folder back."""
        self._run.close()


def expected(share: Param, tau: Param, round: int) -> Report:
    """What a round of these parameters reports."""
    assert isinstance(share, float)
    assert isinstance(tau, float)
    protection, psnr = share**2 * (1 - 0.5**round) - tau, 36 - 200 * tau
    metrics: dict[str, dict[str, float | None]] = {"tsdf/mtcnn": {"protection": protection, "psnr": psnr}}
    return Report(round, {"protection": protection}, {"visible": 30 - psnr}, metrics, 1.0)


@dataclass(frozen=True)
class Kill:
    """What is killed, and when."""

    kind: str
    storage: str
    lines: int
    seconds: float

    @property
    def moment(self) -> str:
        """As the table shows it."""
        return f"{self.lines}+{self.seconds:.2f}"


def moments(seed: int, count: int, kinds: list[str], storages: list[str]) -> list[Kill]:
    """Uniform over the lines of the table, soon after one; before the first, over the start of Ray too."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        at = int(rng.integers(0, LINES))
        seconds = rng.uniform(0.0, 6.0) if at == 0 else rng.uniform(0.02, 0.3)
        # Shifted by one in every turn, so that each kind meets each storage.
        storage = storages[(i % len(kinds) + i // len(kinds)) % len(storages)]
        found.append(Kill(kinds[i % len(kinds)], storage, at, float(seconds)))
    return found


def child(action: Callable[[], object], log: Path) -> int:
    """Run `action` in a forked process with a session of its own; its output goes to `log`."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        action()
    except BaseException as error:  # noqa: BLE001 - a forked child must end here, whatever happened
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def search(out: Path, storage: str, parallel: int, seconds: float) -> None:
    """Begin or resume, as `tsdf_ray.api` does, with the null game in place of matches."""
    if (out / "run.json").exists():
        run, game = RunDirectory.open(out)
        needed = engine.ready(game, None)
    else:
        path = out.with_suffix(".yaml")
        path.write_text(SCENARIO)
        game = Scenario.load(path, (f"search.storage={storage}", f"search.parallel={parallel}"))
        needed = engine.ready(game, None)
        run = RunDirectory.create(out, game, kind="search")
    engine.go(run, game, needed, address=None, report=False, play=functools.partial(NullGame, seconds=seconds))


def lines(path: Path) -> int:
    """Lines of a file, 0 when it is not there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def over(pid: int) -> bool:
    """Has a child ended? Its exit code stays where it is."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def code(pid: int) -> int | None:
    """Exit code of a child; None when it had to be ended, because it hung."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not over(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    hung = not over(pid)
    if hung:
        os.kill(pid, signal.SIGKILL)
    found = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if hung else found


def family(pid: int) -> list[psutil.Process]:
    """The processes that a driver has started."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def lives(process: psutil.Process) -> bool:
    """Does it still run? What has ended may wait long for somebody to take its exit code."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def name_of(process: psutil.Process) -> str:
    """Empty when it has just ended."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def victim(kind: str, driver: int, out: Path, rng: np.random.Generator) -> int | None:
    """The process to kill, when there is one."""
    if kind == "driver":
        return driver
    if kind == "node":
        return next((p.pid for p in family(driver) if name_of(p) == "raylet"), None)
    own = {p.pid for p in family(driver)}
    open_ones = [t.number for t in table_of(out).trials if t.state == "running"]
    files = [out / "trials" / f"{number:04d}" / "pid" for number in open_ones]
    pids = sorted({int(f.read_text() or 0) for f in files if f.exists()} & own)
    return int(rng.choice(pids)) if pids else None


def table_of(out: Path) -> TrialsTable:
    """Of a search's folder."""
    return TrialsTable(out / "trials.jsonl")


def kill_and_resume(kill: Kill, out: Path, parallel: int, rng: np.random.Generator) -> dict[str, Any]:
    """One search, killed and resumed; what came of it."""
    log = out.with_suffix(".log")
    action = functools.partial(search, out, kill.storage, parallel, STEP_SECONDS[kill.kind])
    pid = child(action, log)
    while not over(pid) and (lines(out / "trials.jsonl") < kill.lines or not (out / "run.json").exists()):
        time.sleep(0.005)
    time.sleep(kill.seconds)
    found = None
    while found is None and not over(pid):
        found = victim(kill.kind, pid, out, rng)
        time.sleep(0.002)
    relatives = family(pid)
    before = table_of(out)
    try:
        if found is not None and not over(pid):
            os.kill(found, signal.SIGKILL)
    except ProcessLookupError:
        found = None
    began = time.monotonic()
    first = code(pid)
    noticed = time.monotonic() - began
    ended = table_of(out).of("complete", "pruned", "failed")
    kept = {trial.number: files_of(out, trial.number) for trial in ended}
    again = first
    for _ in range(3):
        if again == 0:
            break
        skip = len(log.read_text())
        again = code(child(action, log))
        # Ray gives its own processes 30 seconds to start, which a busy machine may miss: that is not ours to test.
        if "timed out during startup" not in log.read_text()[skip:]:
            break
    wrong = faults(out, kill.storage, log.read_text())
    if again != 0:
        wrong.append(f"exit code {again}: {log.read_text()[-1500:]}")
    if kill.kind == "node" and first is None:
        wrong.append("the driver hung after its node was killed")
    wrong += [f"trial {n} was touched again" for n, was in kept.items() if files_of(out, n) != was]
    # Ray's agents notice a minute later that their node is gone; they play nothing, so nobody need wait for them.
    for process in relatives:
        if lives(process) and name_of(process).endswith("Agent"):
            process.kill()
    deadline = time.monotonic() + 60
    while any(lives(process) for process in relatives) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in filter(lives, relatives):
        wrong.append(f"{name_of(process)} is still alive")
        process.kill()
    return {
        "kind": kill.kind,
        "storage": kill.storage,
        "moment": kill.moment,
        # Trials that have a process may end without their node: then there is nothing to resume.
        "hit": found is not None,
        "resumed": first != 0,
        "then": dict(Counter(trial.state for trial in before.trials)),
        "seconds": round(noticed, 1),
        "states": dict(Counter(trial.state for trial in table_of(out).trials)),
        "wrong": wrong,
    }


def files_of(out: Path, number: int) -> dict[str, tuple[int, int]]:
    """File of a trial's folder -> size and time of its last change."""
    root = out / "trials" / f"{number:04d}"
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


def faults(out: Path, storage: str, log: str) -> list[str]:
    """All that is wrong with a search that has ended."""
    if not (out / "trials.jsonl").exists():
        return ["there is no table"]
    game = Scenario.load(out / "scenario.yaml")
    config = game.search
    assert config is not None
    wrong = [f"output: {line}" for line in log.splitlines() if "UpdateFinishedTrialError" in line]
    if (status := read_info(out)["status"]) != "complete":
        wrong.append(f"status {status}")
    raw = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    twice = Counter((line["trial"], line["event"], line.get("round")) for line in raw)
    wrong += [f"line {key} is there {count} times" for key, count in twice.items() if count > 1]
    trials = table_of(out).trials
    if [trial.number for trial in trials] != list(range(config.trials)):
        wrong.append(f"{len(trials)} trials in the table")
    for trial in trials:
        wrong += [f"trial {trial.number}: {text}" for text in trial_faults(out, trial, game.rounds)]
    memory = Study(config, trials, optuna.storages.InMemoryStorage()).study
    wrong += [f"rebuilt study: {text}" for text in study_faults(memory, trials)]
    if storage != "memory":
        where = f"{'journal:' if storage == 'journal' else 'sqlite:///'}{out / FILES[storage]}"
        stored = optuna.load_study(study_name=STUDY, storage=open_url(where))
        wrong += [f"{storage}: {text}" for text in study_faults(stored, trials)]
    return wrong


def trial_faults(out: Path, trial: Trial, rounds: int) -> list[str]:
    """Not ended well, a report that is lost or differs, a round that was played twice."""
    wrong = []
    if trial.state not in {"complete", "pruned"}:
        wrong.append(f"{trial.state} ({trial.reason})")
    if (len(trial.rounds) == rounds) != (trial.state == "complete"):
        wrong.append(f"{trial.state} after {len(trial.rounds)} rounds")
    share, tau = trial.params["defenders.tsdf.share.fraction"], trial.params["defenders.tsdf.tau"]
    if trial.rounds != [expected(share, tau, round) for round in range(1, len(trial.rounds) + 1)]:
        wrong.append("its reports are not what its parameters say")
    path = out / "trials" / f"{trial.number:04d}" / "played"
    played = path.read_text().split() if path.exists() else []
    if played != [str(report.round) for report in trial.rounds]:
        wrong.append(f"rounds played: {played}")
    return wrong


def study_faults(study: optuna.Study, trials: list[Trial]) -> list[str]:
    """Where Optuna's study is not the table: a sampler learns from the study."""
    wrong = []
    if len(study.trials) != len(trials):
        wrong.append(f"{len(study.trials)} trials")
    for known, trial in zip(study.trials, trials, strict=False):
        if known.state != STATES[trial.state]:
            wrong.append(f"trial {trial.number}: {known.state.name}")
        if known.params != trial.params:
            wrong.append(f"trial {trial.number}: other parameters")
        if known.intermediate_values != {r.round: r.values["protection"] for r in trial.rounds}:
            wrong.append(f"trial {trial.number}: intermediate values {known.intermediate_values}")
        if trial.state == "complete" and trial.last and known.values != list(trial.last.values.values()):
            wrong.append(f"trial {trial.number}: values {known.values}")
        if trial.last and known.constraints != trial.last.violations:
            wrong.append(f"trial {trial.number}: constraints {known.constraints}")
    return wrong


def differences(out: Path, other: Path) -> list[str]:
    """Trials of one search that are not those of another."""
    return [
        f"trial {a.number} is not as in the unbroken search"
        for a, b in zip(table_of(out).trials, table_of(other).trials, strict=False)
        if (a.params, a.state, a.rounds) != (b.params, b.state, b.rounds)
    ]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=["driver", "actor", "node"])
    parser.add_argument("--storages", nargs="+", default=["memory", "sqlite", "journal"])
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--node-seconds", type=float, default=STEP_SECONDS["node"])
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    STEP_SECONDS["node"] = given.node_seconds
    given.folder.mkdir(parents=True, exist_ok=True)
    unbroken = given.folder / "unbroken"
    if given.parallel == 1:
        action = functools.partial(search, unbroken, "memory", 1, STEP_SECONDS["driver"])
        assert code(child(action, unbroken.with_suffix(".log"))) == 0, unbroken.with_suffix(".log").read_text()
    rng = np.random.default_rng(given.seed)
    if given.table:
        print("| killed | storage | moment | trials then | driver ended after (s) | resumed | trials after | result |")
        print("|---|---|---|---|---|---|---|---|")
    for i, kill in enumerate(moments(given.seed, given.moments, given.kinds, given.storages)):
        out = given.folder / f"killed-{i}"
        result = kill_and_resume(kill, out, given.parallel, rng)
        if given.parallel == 1:
            result["wrong"] += differences(out, unbroken)
        print(row(result) if given.table else json.dumps(result), flush=True)


def row(result: dict[str, Any]) -> str:
    """A line of the Markdown table."""
    then, states = (", ".join(f"{n} {s}" for s, n in result[key].items()) or "none" for key in ("then", "states"))
    said = "; ".join(result["wrong"]) or ("as it should be" if result["hit"] else "ended before the kill")
    resumed = "yes" if result["resumed"] else "no"
    cells = (result["kind"], result["storage"], result["moment"], then, str(result["seconds"]), resumed, states, said)
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
