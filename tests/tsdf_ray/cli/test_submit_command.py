"""`tsdf-ray submit` with a cluster made of a list: one job per order, one line of progress, the job's exit code."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tsdf_ray import remote
from tsdf_ray.cli import app, submit
from tsdf_ray.cli.job_progress import LiveJob, PlainJob
from tsdf_ray.errors import UserError
from tsdf_ray.jobs import Job, NoAnswer, Order, Outcome, SearchOutcome

PAIRS = {"tsdf/mtcnn": {"protection": [{"value": 0.25, "low": 0.2, "high": 0.3}]}}
DONE = Outcome("/runs/a", "/runs/a/report.html", PAIRS, {}).line()
FAILED = Outcome("/runs/a", None, PAIRS, {"tsdf-vs-mtcnn-s0": "round 2: loss is not finite"}).line()
ROUND = "tsdf-vs-mtcnn-s0: round 1/2: 3.0 s, left: 3 s"


class FakeJobs:
    """Each `find` of a job that was submitted takes the next of `states`."""

    def __init__(self, states: list[Job | Exception], log: str) -> None:
        self.states, self.text = states, log
        self.orders: list[Order] = []
        self.known: dict[str, Job] = {}

    def find(self, name: str) -> Job | None:
        if name not in {order.id for order in self.orders}:
            return self.known.get(name)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return Job(name, state.state, state.exit_code, state.message)

    def submit(self, order: Order) -> None:
        self.orders.append(order)

    def log(self, name: str) -> str:
        return self.text


def job(state: Any, code: int | None = None) -> Job:
    return Job("", state, code)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(submit, "POLL_SECONDS", (0.0, 0.0))

    def call(jobs: FakeJobs, *words: str) -> Any:
        monkeypatch.setattr(remote, "jobs_at", lambda address: jobs)
        command = ["submit", "smoke", "--address", "http://head:8265", "--out", "/runs/a", *words]
        return CliRunner().invoke(app, command)

    return call


def test_a_job_is_waited_for(run: Callable[..., Any]) -> None:
    jobs = FakeJobs([job("waiting"), job("waiting"), job("running"), job("succeeded", 0)], f"{ROUND}\n{DONE}\n")
    done = run(jobs)
    assert done.exit_code == 0, done.output
    (order,) = jobs.orders
    assert done.stderr.splitlines() == [
        f"job {order.id}: submitted",
        f"job {order.id}: waiting",
        ROUND,
        f"job {order.id}: running",
        f"job {order.id}: succeeded",
    ]
    assert "0.25 [0.20, 0.30]" in done.stdout
    assert "report: /runs/a/report.html" in done.stdout

    # The same again: known by its name, not submitted, shown.
    known = FakeJobs([], f"{ROUND}\n{DONE}\n")
    known.known = {order.id: Job(order.id, "succeeded", 0)}
    again = run(known)
    assert again.exit_code == 0
    assert known.orders == []
    assert "has ended before (succeeded)" in again.stderr
    assert again.stdout == done.stdout
    run(known, "--again")
    assert known.orders == [], "a job that ended well is not done again"


CELL = {"value": 0.25, "low": 0.2, "high": 0.3}
SETTING = {"name": "trial_1", "kind": "best", "searched": {"protection": CELL | {"low": None}}, "replayed": {}}


@pytest.mark.parametrize(
    ("trials", "code", "shown"),
    [
        ({"complete": 1, "failed": 1}, 0, ["trials: 1 complete, 1 failed", "trial_1 (best)", "0.25 -> -"]),
        ({"failed": 2}, 1, ["trials: 2 failed", "no trial could be completed:\nno memory\n", "/runs/a/trials"]),
        ({}, 1, ["no trial was begun: raise search.seconds"]),
    ],
)
def test_a_search_is_waited_for(
    run: Callable[..., Any], trials: dict[str, int], code: int, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = SearchOutcome("/runs/a", None, trials, ["protection"], [SETTING] if not code else [], None, ["no memory"])
    line = "1/2 trial 0: failed (no memory); left: 3 s"
    jobs = FakeJobs([job("running"), job("failed" if code else "succeeded", code)], f"{line}\n{done.line()}\n")
    monkeypatch.setattr(remote, "jobs_at", lambda address: jobs)
    words = ["submit", "sweep/separation-small", "--address", "http://head:8265", "--out", "/runs/a"]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == code, ended.output
    assert "submitted (a search: up to 24 trials" in ended.stderr
    assert line in ended.stderr.splitlines()
    for text in shown:
        assert text in ended.output


@pytest.mark.parametrize(
    ("end", "log", "code", "words"),
    [
        (job("failed", 1), FAILED, 1, ["round 2: loss is not finite", "tsdf-ray resume /runs/a"]),
        (job("failed", 2), "error: scenario.yaml: x", 2, ["failed, exit code 2", "error: scenario.yaml: x"]),
        (job("failed", 127), "sh: tsdf-ray: not found", 127, ["is not installed there"]),
        (job("failed", -9), "", 137, ["exit code 137", "(empty)"]),
        (job("stopped"), f"{ROUND}\nstopped as asked", 143, ["stopped as asked", "--again"]),
        (job("succeeded", 0), "", 1, ["left no result"]),
    ],
)
def test_what_ends_a_job(run: Callable[..., Any], end: Job, log: str, code: int, words: list[str]) -> None:
    done = run(FakeJobs([end], log))
    assert done.exit_code == code
    for word in words:
        assert word in done.stderr
    assert "tsdf-ray summary" not in done.stderr


def test_a_job_that_failed_is_done_again_only_when_asked(run: Callable[..., Any]) -> None:
    first = FakeJobs([job("failed", 1)], "")
    run(first, "--submission-id", "mine")
    known = FakeJobs([job("succeeded", 0)], DONE)
    known.known = {"mine": Job("mine", "failed", 1)}
    assert run(known, "--submission-id", "mine").exit_code == 1
    assert known.orders == []
    again = run(known, "--submission-id", "mine", "--again")
    assert again.exit_code == 0
    assert [order.id for order in known.orders] == ["mine-2"]


def test_not_waiting(run: Callable[..., Any]) -> None:
    done = run(FakeJobs([job("waiting")], ""), "--no-wait", "--submission-id", "mine")
    assert done.exit_code == 0
    assert "ray job stop --address http://head:8265 mine" in done.stderr
    assert done.stdout == ""


def test_a_silent_cluster_is_asked_again(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    silent = NoAnswer("http://head:8265: no dashboard of a Ray cluster answers there")
    done = run(FakeJobs([job("waiting"), silent, silent, job("succeeded", 0)], DONE))
    assert done.exit_code == 0
    assert done.stderr.count("the cluster does not answer; trying again") == 1
    monkeypatch.setattr(submit, "PATIENCE_SECONDS", 0.0)
    lost = run(FakeJobs([job("waiting"), silent], ""))
    assert lost.exit_code == 2
    assert "no dashboard of a Ray cluster answers there" in lost.stderr
    refused = run(FakeJobs([job("waiting"), UserError("refuses our token")], ""))
    assert refused.exit_code == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_waiting(run: Callable[..., Any], number: signal.Signals, code: int) -> None:
    class Signalled(FakeJobs):
        def log(self, name: str) -> str:
            os.kill(os.getpid(), number)
            return ""

    before = signal.getsignal(number)
    done = run(Signalled([job("running")], ""), "--submission-id", "mine")
    assert done.exit_code == code
    assert "job mine: goes on" in done.stderr
    assert signal.getsignal(number) is before


def test_the_live_line() -> None:
    out = io.StringIO()
    times = iter([0.0, 75.0])
    with LiveJob(Console(file=out, force_terminal=True, width=120), lambda: next(times)) as live:
        live.show(Job("mine", "running"), f"[red]x[/red]\n{ROUND}\n")
    assert f"job mine: running, 1 min 15 s; {ROUND}" in out.getvalue()


def test_plain_lines_are_told_once() -> None:
    out = io.StringIO()
    plain = PlainJob(out)
    plain.show(Job("mine", "running"), ROUND)
    plain.show(Job("mine", "running"), f"{ROUND}\n{ROUND}")
    plain.show(Job("mine", "failed", 1), f"{ROUND}\n{ROUND}\n")
    assert out.getvalue().splitlines() == [ROUND, "job mine: running", ROUND, "job mine: failed"]
