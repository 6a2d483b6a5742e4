"""`tsdf-ray submit`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from tsdf_ray.cli.group import FAILED, leave

if TYPE_CHECKING:
    from tsdf_ray.jobs import Job, Jobs

POLL_SECONDS = (0.5, 5.0)
"""Between two looks: at the beginning, and for a job that has run for a minute."""
PATIENCE_SECONDS = 120.0
"""How long a cluster may not answer while we wait: tunnels break, heads are busy."""
TAIL = 20
"""Lines of a failed job's log that are shown."""


def submit(
    scenario: Annotated[str, typer.Argument(help="A packaged scenario, or a YAML file: it travels with the job.")],
    out: Annotated[
        str, typer.Option("--out", help="Folder or URI of the run, on storage that the cluster's nodes share.")
    ],
    address: Annotated[
        str | None,
        typer.Option("--address", help="The cluster's dashboard, http://HEAD:8265; default: RAY_ADDRESS."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, for example rounds=2; may be repeated."),
    ] = None,
    submission_id: Annotated[
        str | None, typer.Option("--submission-id", help="Name of the job; default: made of scenario and --out.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="After a job that failed or was stopped: a new one goes on with its run.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end and show the result.")] = True,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html and figures.")] = True,
) -> None:
    """Play a scenario as a job of a Ray cluster; one with a section `search` is searched, as by `tune`.

    The same call twice is one job: the second waits for it, or shows how it ended.
    """
    from tsdf_ray.address import jobs_address
    from tsdf_ray.jobs import Order, latest, make_order
    from tsdf_ray.remote import jobs_at
    from tsdf_ray.scenario import Scenario

    where = jobs_address(address)
    game = Scenario.load(scenario, tuple(changes or ()))
    order = make_order(game, out, submission_id, report=report)
    jobs = jobs_at(where)
    job, next_id = latest(jobs, order.id)
    if job is None or (again and job.state in {"failed", "stopped"}):
        order = Order(next_id, order.entrypoint, order.scenario, order.metadata)
        jobs.submit(order)
        job = jobs.find(order.id)
        what = f" (a search: up to {game.search.trials} trials; --set search=null plays alone)" if game.search else ""
        typer.echo(f"job {order.id}: submitted{what}", err=True)
    else:
        typer.echo(f"job {job.id}: {'has ended before' if job.ended else 'is there already'} ({job.state})", err=True)
    if job is None:
        raise leave(FAILED, f"job {order.id}: was submitted and cannot be found; look at {where}")
    stop = f"`ray job stop --address {where} {job.id}` stops it"
    if not wait:
        typer.echo(f"job {job.id}: the same command without --no-wait waits for it; {stop}", err=True)
        return
    with _left_running(f"job {job.id}: goes on; the same command waits for it again; {stop}"):
        job = _wait(jobs, job.id)
    _show(jobs, job)


def _wait(
    jobs: Jobs, name: str, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
) -> Job:
    """Until the job has ended, with one line of progress. Raises NoAnswer after `PATIENCE_SECONDS` of silence."""
    from tsdf_ray.cli.job_progress import make_job_progress
    from tsdf_ray.jobs import NoAnswer

    began = answered = clock()
    with make_job_progress() as progress:
        while True:
            now = clock()
            try:
                job = jobs.find(name)
                if job is None:
                    raise leave(
                        FAILED, f"job {name}: the cluster knows it no more; its head may have been started anew"
                    )
                progress.show(job, "" if job.state == "waiting" else jobs.log(name))
                answered = now
                if job.ended:
                    return job
            except NoAnswer:
                if now - answered > PATIENCE_SECONDS:
                    raise
                progress.quiet(now - answered)
            sleep(min(POLL_SECONDS[1], max(POLL_SECONDS[0], (now - began) / 12)))


def _show(jobs: Jobs, job: Job) -> None:
    """The result, as `play` or `tune` shows it, and the job's exit code."""
    from tsdf_ray.cli.outcome import show_outcome, show_search_outcome
    from tsdf_ray.jobs import Outcome, outcome_in, plain_lines

    log = jobs.log(job.id)
    found = outcome_in(log)
    if found is not None and job.state != "stopped":
        if isinstance(found, Outcome):
            show_outcome(found)
        else:
            show_search_outcome(found)
        if not job.code:
            return
    tail = "\n".join(f"  {line}" for line in list(plain_lines(log or job.message))[-TAIL:])
    remedy = "; `tsdf-ray` is not installed there (deploy/Dockerfile)" if job.code == 127 else ""
    how = f"ended well but left no result{remedy}" if not job.code else f"{job.state}, exit code {job.code}{remedy}"
    go_on = "; --again goes on with its run"
    raise leave(job.code or FAILED, f"job {job.id}: {how}{go_on}; the end of its log:\n{tail or '  (empty)'}")


@contextmanager
def _left_running(text: str) -> Iterator[None]:
    """SIGINT and SIGTERM end the waiting, never the job: `text` says so, and the exit code is 130 or 143."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise _Signal(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _Signal as asked:
        raise leave(128 + asked.number, f"\n{text}") from asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Signal(BaseException):
    """Not an Exception: nothing on the way may take it for an error of the network."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
