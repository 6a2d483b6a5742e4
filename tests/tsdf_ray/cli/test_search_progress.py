"""Where a search stands: counts, best so far, time left."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tsdf_ray.cli.search_progress import LiveSearch, PlainSearch, ShownSearch, make_search_progress
from tsdf_ray.errors import Stopped
from tsdf_ray.game.spec import all_matches
from tsdf_ray.scenario import Scenario
from tsdf_ray.store import trials
from tsdf_ray.store.trials import Report, TrialsTable


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The table's clock and the board's."""
    made = Clock()
    monkeypatch.setattr(trials.time, "time", made)
    return made


@pytest.fixture
def table(tmp_path: Path, clock: Clock) -> TrialsTable:
    return TrialsTable(tmp_path / "trials.jsonl")


def sweep(trials: int = 10, **search: Any) -> Scenario:
    content = Scenario.load("smoke").model_dump(mode="json")
    content["search"] = {
        "parameters": {"defenders.tsdf.tau": {"kind": "uniform", "low": 0.01, "high": 0.05}},
        "objectives": {"protection": {"metric": "protection"}},
        "trials": trials,
    } | search
    return Scenario.model_validate(content)


def play(table: TrialsTable, clock: Clock, seconds: float, state: Any = "complete", reason: str | None = None) -> None:
    """A trial that takes so long."""
    trial = table.asked({}, None)
    clock.now += seconds
    table.ended(trial.number, state, reason)


def begun(board: ShownSearch, table: TrialsTable, scenario: Scenario, parallel: int = 1) -> None:
    board.begin_search(scenario, table, lambda: "best protection: 0.9 (trial 1)", parallel)


def test_time_left(table: TrialsTable, clock: Clock) -> None:
    board = ShownSearch(clock)
    assert board.left() is None
    begun(board, table, sweep(10))
    assert board.left() is None, "nothing has ended"
    play(table, clock, 10)
    assert board.left() == 90
    play(table, clock, 20, "pruned")
    assert board.left() == 15 * 8, "by the mean"
    play(table, clock, 30, "failed")
    assert board.left() == 20 * 7


@pytest.mark.parametrize(("trials", "parallel", "left"), [(5, 2, 20), (4, 2, 20), (3, 2, 10), (2, 4, 10), (1, 4, 0)])
def test_trials_side_by_side_come_in_turns(
    table: TrialsTable, clock: Clock, trials: int, parallel: int, left: float
) -> None:
    board = ShownSearch(clock)
    begun(board, table, sweep(trials), parallel)
    play(table, clock, 10)
    assert board.left() == left, "half a turn is a turn"


def test_the_time_budget_ends_it(table: TrialsTable, clock: Clock) -> None:
    board = ShownSearch(clock)
    begun(board, table, sweep(100, seconds=60))
    play(table, clock, 10)
    assert board.left() == 50
    clock.now += 45
    assert board.left() == 5
    clock.now += 45
    assert board.left() == 0


def test_the_night_before_a_resume_does_not_count(table: TrialsTable, clock: Clock) -> None:
    trial = table.asked({}, None)
    table.reported(trial.number, Report(1, {}, {}, {}, 5.0))
    clock.now += 50_000
    board = ShownSearch(clock)
    begun(board, table, sweep(3))
    table.reported(trial.number, Report(2, {}, {}, {}, 7.0))
    table.ended(trial.number, "complete")
    assert board.left() == 24
    play(table, clock, 20)
    assert board.left() == 16


def test_plain_text_has_a_line_per_trial(table: TrialsTable, clock: Clock) -> None:
    out = io.StringIO()
    board = PlainSearch(out, clock)
    play(table, clock, 60)
    begun(board, table, sweep(4))
    board.changed()
    assert out.getvalue() == "", "what had ended before is not told again"
    trial = table.asked({}, "paper")
    board.changed()
    assert out.getvalue() == "", "a trial that begins is no news"
    clock.now += 60
    table.ended(trial.number, "pruned", "stopped by asha after round 1")
    board.changed()
    board.changed()
    play(table, clock, 0, "failed", "loss is not finite")
    board.changed()
    board.note("2 best setting(s) are in DIR/best")
    board.end()
    assert out.getvalue().splitlines() == [
        "2/4 trial 1 (paper): pruned; best protection: 0.9 (trial 1); left: 1 min 00 s",
        "3/4 trial 2: failed (loss is not finite); best protection: 0.9 (trial 1); left: 20 s",
        "2 best setting(s) are in DIR/best",
    ]


def shown(board: LiveSearch) -> list[str]:
    console = Console(file=io.StringIO(), width=160)
    console.print(board.table())
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_the_live_table(table: TrialsTable, clock: Clock) -> None:
    board = LiveSearch(Console(file=io.StringIO(), force_terminal=True, width=160), clock)
    begun(board, table, sweep(10), 2)
    try:
        assert shown(board) == ["0 of 10 trials ended best protection: 0.9 (trial 1) left ?"]
        for state in ("complete", "complete", "pruned", "failed"):
            play(table, clock, 30, state)
        for _ in range(2):
            table.asked({}, None)
        board.changed()
        line = shown(board)[0]
        assert "4 of 10 trials ended" in line
        assert "2 complete, 2 running, 1 pruned, 1 failed" in line
        assert "best protection: 0.9 (trial 1)" in line
        assert "left 1 min 30 s" in line
        board.note("best settings are written")
        assert shown(board)[1] == "best settings are written"
    finally:
        board.end()


def test_asking_stops_the_matches_beside_the_search_too(table: TrialsTable) -> None:
    board = PlainSearch(io.StringIO())
    playing = board.matches()
    playing.begin(Scenario.load("smoke"), {})
    playing.phase(next(iter(all_matches(Scenario.load("smoke")))), 1, "learn")
    playing.check()
    board.check()
    board.ask()
    for checked in (playing, board):
        with pytest.raises(Stopped, match="finished trials and rounds are saved, `tsdf-ray resume` goes on"):
            checked.check()


def test_text_where_there_is_no_terminal() -> None:
    assert isinstance(make_search_progress(), PlainSearch)
    assert list(itertools.islice(PlainSearch(io.StringIO()).counts().items(), 4)) == [
        ("complete", 0), ("running", 0), ("pruned", 0), ("failed", 0),
    ]  # fmt: skip
