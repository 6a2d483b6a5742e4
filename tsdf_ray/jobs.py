"""A race or a search as a batch job on a cluster: what is sent there, under which name, what comes back in its log.

Only the text of it: actors/jobs.py carries it there.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tsdf_ray.errors import UserError
from tsdf_ray.files import has_password, is_uri, without_secrets

if TYPE_CHECKING:
    from tsdf_ray.scenario import Scenario

SCENARIO_FILE = "scenario.yaml"
"""In the job's working folder, which holds nothing else."""
SUMMARY_MARK = "tsdf-ray summary: "
"""Begins the line of a job's log that carries the result; shared or object storage may not be reachable from here."""
NOISE = re.compile(r"^(\[?\d{4}-\d\d-\d\d|\(|\s|Traceback)")
"""Lines of a log that are Ray's, or part of a traceback."""

State = Literal["waiting", "running", "succeeded", "failed", "stopped"]


class NoAnswer(UserError):
    """The cluster does not answer; it may again."""


@dataclass(frozen=True)
class Job:
    """A job as the cluster sees it."""

    id: str
    state: State
    exit_code: int | None = None
    message: str = ""

    @property
    def ended(self) -> bool:
        """Will it never change again?"""
        return self.state in {"succeeded", "failed", "stopped"}

    @property
    def code(self) -> int:
        """Exit code for whoever waited: the job's own; 143 when it was asked to stop, 128 + N after signal N."""
        if self.state == "stopped":
            return 143
        if self.exit_code is None:
            return 0 if self.state == "succeeded" else 1
        return 128 - self.exit_code if self.exit_code < 0 else self.exit_code


@dataclass(frozen=True)
class Order:
    """What to run, under which name."""

    id: str
    entrypoint: str
    scenario: str
    """YAML."""
    metadata: dict[str, str]


class Jobs(Protocol):
    """The jobs of one cluster. Every call raises UserError (no token, a wrong one) or NoAnswer."""

    def find(self, name: str) -> Job | None: ...
    def submit(self, order: Order) -> None: ...
    def log(self, name: str) -> str: ...


def make_order(game: Scenario, out: str, name: str | None = None, *, report: bool = True) -> Order:
    """The job that plays `game` into `out`, or searches it where it has a section `search`, or goes on with that there.

    By default it is named after both. `out` is a path or URI the cluster's nodes share. The scenario travels with its
    defaults filled in, so that the digest here and there agree. Raises UserError for a relative path, a search at a
    URI, a URI with a password, and a name that cannot be one.
    """
    if not out.startswith("/") and not is_uri(out):
        raise UserError(f"--out {out}: the job runs elsewhere; give an absolute path or URI that its nodes share")
    if game.search is not None and is_uri(out):
        shown = without_secrets(out)
        raise UserError(f"--out {shown}: a search is written to a folder; give an absolute path that its nodes share")
    if has_password(out):
        raise UserError(
            f"--out {without_secrets(out)}: whoever uses the cluster can read a job's command; leave the password out, "
            "the nodes find credentials as the storage's own tools do"
        )
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise UserError(f"--submission-id {name}: use up to 100 letters, digits, `-`, `_` and `.`")
    verb = "play" if game.search is None else "tune"
    command = ["tsdf-ray", verb, SCENARIO_FILE, "--out", out, "--resume", "--log-summary"]
    return Order(
        name or submission_id(game.digest, out),
        shlex.join(command if report else [*command, "--no-report"]),
        game.as_yaml(),
        {"scenario": game.name, "digest": game.digest, "out": without_secrets(out)},
    )


def submission_id(digest: str, out: str) -> str:
    """The same scenario into the same place is the same job."""
    return f"tsdf-{hashlib.sha256(f'{digest} {out}'.encode()).hexdigest()[:16]}"


def latest(jobs: Jobs, first: str) -> tuple[Job | None, str]:
    """The last of the jobs `first`, `first-2`, `first-3`, ... and the name the next one would have."""
    found, name, number = None, first, 1
    while (job := jobs.find(name)) is not None:
        found, number = job, number + 1
        name = f"{first}-{number}"
    return found, name


@dataclass(frozen=True)
class Outcome:
    """How a race ended, as `play` shows it; travels as one line of a job's log."""

    place: str
    page: str | None
    pairs: dict[str, Any]
    failed: dict[str, str]

    def line(self) -> str:
        """For the log."""
        return SUMMARY_MARK + json.dumps(vars(self), allow_nan=False)


@dataclass(frozen=True)
class SearchOutcome:
    """How a search ended, as `tune` shows it; travels in the same way."""

    place: str
    page: str | None
    trials: dict[str, int]
    """By state; none where none was begun."""
    measured: list[str]
    """Names of objectives and constraints."""
    settings: list[dict[str, Any]]
    """Best ones, start points and baselines: name, kind, and cells by name, `searched` and `replayed`."""
    no_best: str | None
    """Why there is no best setting."""
    reasons: list[str]
    """Why trials failed or were pruned, each once."""

    def line(self) -> str:
        """For the log."""
        return SUMMARY_MARK + json.dumps(vars(self), allow_nan=False)


def outcome_in(log: str) -> Outcome | SearchOutcome | None:
    """The result in a job's log, None when there is none."""
    for line in reversed(log.splitlines()):
        if line.startswith(SUMMARY_MARK):
            try:
                content = _all_printable(json.loads(line.removeprefix(SUMMARY_MARK)))
                if not all(isinstance(content.get(name, {}), dict) for name in ("pairs", "failed", "trials")):
                    return None
                kind = SearchOutcome if "trials" in content else Outcome
                return kind(**{field.name: content[field.name] for field in fields(kind)})
            except (ValueError, KeyError, TypeError, AttributeError):
                return None
    return None


def _all_printable(content: Any) -> Any:
    """The same content with every text in it printable."""
    if isinstance(content, dict):
        return {printable(key): _all_printable(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_all_printable(value) for value in content]
    return printable(content) if isinstance(content, str) else content


def plain_lines(log: str) -> Iterator[str]:
    """The log's lines for people, without the result's."""
    for line in log.splitlines():
        if line.strip() and not line.startswith(SUMMARY_MARK):
            yield printable(line)


def printable(text: str) -> str:
    """A log comes from outside: no control character but the end of a line reaches the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def progress_in(log: str) -> list[str]:
    """What `play` and `tune` tell on their way: rounds or trials that ended, and what they wait for."""
    before, begun, after = log.partition("Running entrypoint for job ")
    lines = (after if begun else before).split(SUMMARY_MARK, 1)[0].splitlines()[bool(begun) :]
    return [printable(line) for line in lines if line.strip() and not NOISE.match(line)]
