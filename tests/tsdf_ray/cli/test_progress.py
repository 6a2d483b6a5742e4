"""Progress: rounds and time left, from several threads at once."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from tsdf_ray.cli.progress import Board, LiveProgress, PlainProgress, short
from tsdf_ray.errors import Stopped
from tsdf_ray.game.spec import MatchSpec, all_matches
from tsdf_ray.scenario import Scenario


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario.load("quickstart")


@pytest.fixture(scope="module")
def matches(scenario: Scenario) -> list[MatchSpec]:
    return all_matches(scenario)


def test_time_left(scenario: Scenario, matches: list[MatchSpec]) -> None:
    clock = Clock()
    board = Board(clock)
    board.begin(scenario, {})
    first, second = matches[:2]
    board.phase(first, 1, "learn")
    assert board.left(first.id) is None
    clock.now = 4
    board.phase(first, 1, "retrain")
    clock.now = 10
    board.phase(first, 1, "done")
    assert board.left(first.id) == 20
    assert board.left(second.id) == 30, "other matches are judged by the rounds that are known"
    board.phase(first, 2, "learn")
    clock.now = 13
    assert board.left(first.id) == 17
    clock.now = 40
    assert board.left(first.id) == 10, "a slow round cannot make the rest negative"
    assert board.total_left() == 10 + 3 * 30


def test_a_resumed_run_counts_what_is_on_disk(scenario: Scenario, matches: list[MatchSpec]) -> None:
    clock = Clock()
    board = Board(clock)
    board.begin(scenario, {matches[0].id: 2, matches[1].id: 3})
    board.phase(matches[0], 3, "learn")
    clock.now = 8
    board.phase(matches[0], 3, "done")
    assert board.left(matches[0].id) == 0
    assert board.left(matches[1].id) == 0
    assert board.left(matches[2].id) == 24


def test_plain_text_has_a_line_per_round(scenario: Scenario, matches: list[MatchSpec]) -> None:
    clock, out = Clock(), io.StringIO()
    progress = PlainProgress(out, clock)
    progress.begin(scenario, {})
    for phase in ("defend", "learn", "publish", "prepare", "before", "retrain", "after"):
        progress.phase(matches[0], 1, phase)
        clock.now += 1
    progress.phase(matches[0], 1, "done")
    progress.phase(matches[1], 1, "learn")
    progress.phase(matches[1], 0, "failed")
    progress.end()
    assert out.getvalue().splitlines() == [
        f"{matches[0].id}: round 1/3: 7.0 s, left: 14 s",
        f"{matches[1].id}: failed in round 1/3",
    ]


def test_live_lines(scenario: Scenario, matches: list[MatchSpec]) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    progress = LiveProgress(console, Clock())
    progress.begin(scenario, {matches[3].id: 3})
    try:
        progress.phase(matches[0], 2, "retrain")
        progress.phase(matches[1], 1, "learn")
        progress.phase(matches[2], 1, "failed")
        shown = Console(file=io.StringIO(), width=120)
        shown.print(progress.table())
        assert isinstance(shown.file, io.StringIO)
        lines = shown.file.getvalue().splitlines()
    finally:
        progress.end()
    assert len(lines) == 3
    assert matches[0].id in lines[0]
    assert "round 2/3" in lines[0]
    assert "attacker retrains" in lines[0]
    assert "2 of 4 matches ended" in lines[2]


def test_many_threads(scenario: Scenario, matches: list[MatchSpec]) -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    progress.begin(scenario, {})

    def play(match: MatchSpec) -> None:
        for round_ in range(1, 4):
            for _ in range(50):
                progress.phase(match, round_, "learn")
            progress.phase(match, round_, "done")

    threads = [threading.Thread(target=play, args=(match,)) for match in matches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = out.getvalue().splitlines()
    assert len(lines) == 3 * len(matches)
    assert sorted(line.split(":")[0] for line in lines) == sorted(match.id for match in matches for _ in range(3))


def test_asking_stops() -> None:
    progress = PlainProgress(io.StringIO())
    progress.check()
    progress.ask()
    with pytest.raises(Stopped, match="resume"):
        progress.check()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0.2, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert short(seconds) == text
