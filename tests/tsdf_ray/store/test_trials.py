"""The trials table: what is written is read back, half a line counts for nothing, and nothing is told twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsdf_ray.errors import NotStored, UserError
from tsdf_ray.store import trials
from tsdf_ray.store.trials import Report, State, Trial, TrialsTable

METRICS: dict[str, dict[str, float | None]] = {"a/b": {"psnr": 31.5, "duq.mtcnn": None}}


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a file was flushed to disk; really doing it would take most of the time."""
    calls: list[int] = []
    monkeypatch.setattr(trials.os, "fsync", calls.append)
    return calls


def report(round: int, value: float = 0.5, seconds: float = 2.0) -> Report:
    return Report(round, {"good": value}, {"dark": -0.25}, METRICS, seconds)


def small(path: Path) -> TrialsTable:
    """Trial 0 complete, 1 pruned, 2 failed, 3 running."""
    table = TrialsTable(path)
    table.asked({"x": 0.1, "kind": "å", "flag": True, "none": None}, "paper", {"Sampler:generation": 0})
    table.reported(0, report(1))
    table.asked({"x": 0.25}, None)
    table.reported(0, report(2, 0.1 + 0.2))
    table.reported(1, report(1, -3.0))
    table.ended(1, "pruned", "stopped by asha after round 1")
    table.ended(0, "complete")
    table.asked({"x": 1}, None)
    table.ended(2, "failed", "loss is\nnot finite")
    table.asked({"x": 0.75}, None)
    return table


def test_what_could_not_be_written_has_not_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = small(tmp_path / "trials.jsonl")
    before = TrialsTable(tmp_path / "trials.jsonl").trials

    def full(path: Path, text: str) -> None:
        raise NotStored("no room")

    with monkeypatch.context() as patch:
        patch.setattr(trials, "append", full)
        for write in (
            lambda: table.asked({"x": 2}, None),
            lambda: table.reported(3, report(1)),
            lambda: table.ended(3, "complete"),
        ):
            with pytest.raises(NotStored):
                write()
            assert table.trials == before
    assert table.reported(3, report(1))
    assert TrialsTable(tmp_path / "trials.jsonl").trials == table.trials


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    written = small(path)
    again = TrialsTable(path)
    assert again.trials == written.trials
    assert [trial.state for trial in again.trials] == ["complete", "pruned", "failed", "running"]
    first = again.trials[0]
    assert first.params == {"x": 0.1, "kind": "å", "flag": True, "none": None}
    assert first.params["flag"] is True
    assert (first.point, first.notes) == ("paper", {"Sampler:generation": 0})
    assert first.last == report(2, 0.30000000000000004), "numbers come back to the last bit"
    assert first.seconds == 4.0
    assert again.trials[2].reason == "loss is\nnot finite"
    assert again.trials[3].ended is None
    assert [trial.number for trial in again.of("pruned", "failed")] == [1, 2]
    assert (again.trials[0].label, again.trials[3].label) == ("trial 0 (paper)", "trial 3")


def test_every_line_is_on_disk_before_the_search_goes_on(tmp_path: Path, synced: list[int]) -> None:
    small(tmp_path / "trials.jsonl")
    assert len(synced) == len((tmp_path / "trials.jsonl").read_text().splitlines())


def test_no_file_is_an_empty_table(tmp_path: Path) -> None:
    table = TrialsTable(tmp_path / "trials.jsonl")
    table.repair()
    assert table.trials == []
    assert not (tmp_path / "trials.jsonl").exists()


def test_a_constraint_that_is_just_kept_is_kept() -> None:
    assert Report(1, {}, {"dark": 0.0}, {}, 1.0).feasible
    assert not Report(1, {}, {"dark": 0.0, "light": 1e-9}, {}, 1.0).feasible


def test_what_is_known_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    table = small(path)
    assert table.reported(3, report(1))
    before = path.read_bytes()
    assert not table.reported(3, report(1, 99.0)), "a round is told once; the first one counts"
    assert not table.ended(0, "failed", "its process died")
    assert not table.reported(1, report(2)), "it has ended"
    assert path.read_bytes() == before
    assert table.trials[3].rounds == [report(1)]
    assert table.trials[0].state == "complete"


def test_lines_that_come_twice_count_once(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    wanted = small(path).trials
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line * 2 for line in lines))
    assert TrialsTable(path).trials == wanted


def test_a_round_left_out_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    table = small(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="round 2 follows 0"):
        table.reported(3, report(2))
    assert path.read_bytes() == before
    assert table.trials[3].rounds == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_no_line_holds_what_json_has_no_word_for(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "trials.jsonl"
    table = small(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        table.reported(3, report(1, bad))
    with pytest.raises(ValueError, match="JSON"):
        table.asked({"x": bad}, None)
    assert path.read_bytes() == before
    assert (len(table.trials), table.trials[3].rounds) == (4, [])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (1, "{"),
        (4, "not json"),
        (2, "[1, 2]"),
        (3, '{"trial": 7, "event": "asked", "params": {}, "point": null, "time": 0, "notes": {}}'),
        (3, '{"trial": 9, "event": "ended", "state": "complete", "reason": null, "time": 0}'),
        (2, '{"trial": 0, "event": "exploded"}'),
        (2, '{"trial": 0, "event": "round", "round": 1}'),
        (2, '{"trial": -1, "event": "ended", "state": "failed", "reason": null, "time": 0}'),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: int, text: str) -> None:
    path = tmp_path / "trials.jsonl"
    small(path)
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"trials\.jsonl: line {line} is damaged; restore the file from a copy"):
        TrialsTable(path)


def test_a_torn_line_is_cut_off_by_repair_alone(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    small(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"trial": 3, "event": "ro')
    table = TrialsTable(path)
    assert path.stat().st_size > len(whole), "reading changes nothing: others may read while the search writes"
    table.repair()
    assert path.read_bytes() == whole
    assert table.reported(3, report(1))
    assert TrialsTable(path).trials == table.trials


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("log") / "trials.jsonl"
    small(path)
    return path.read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_log_cut_at_any_byte_is_a_consistent_beginning(tmp_path: Path, log: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(log)))
    path = tmp_path / "cut.jsonl"
    path.write_bytes(log[:cut])
    table = TrialsTable(path)
    table.repair()
    kept = path.read_bytes()
    assert kept == log[: log.rfind(b"\n", 0, cut) + 1], "all whole lines, and nothing else"
    assert table.trials == replayed(kept)
    assert TrialsTable(path).trials == table.trials
    # And the search goes on: the rest can be told again from its first line, what is known counts once.
    for line in log.splitlines():
        tell(table, json.loads(line))
    assert simple(table.trials) == simple(replayed(log))


def replayed(lines: bytes) -> list[Trial]:
    """What lines without doubles say, read in the plainest way."""
    trials: list[Trial] = []
    for text in lines.splitlines():
        line = json.loads(text)
        if line["event"] == "asked":
            trials.append(Trial(line["trial"], line["params"], line["point"], line["time"], notes=line["notes"]))
        elif line["event"] == "round":
            keys = ("round", "values", "violations", "metrics", "seconds")
            trials[line["trial"]].rounds.append(Report(*(line[key] for key in keys)))
        else:
            trial = trials[line["trial"]]
            trial.state, trial.reason, trial.ended = line["state"], line["reason"], line["time"]
    return trials


def tell(table: TrialsTable, line: dict[str, Any]) -> None:
    """A line to the table, as the search would."""
    if line["event"] == "asked":
        if line["trial"] == len(table.trials):
            table.asked(line["params"], line["point"], line["notes"])
    elif line["event"] == "round":
        keys = ("round", "values", "violations", "metrics", "seconds")
        table.reported(line["trial"], Report(*(line[key] for key in keys)))
    else:
        table.ended(line["trial"], line["state"], line["reason"])


def simple(trials: list[Trial]) -> list[tuple[dict[str, Any], str | None, State, list[Report], str | None]]:
    """All but the times."""
    return [(trial.params, trial.point, trial.state, trial.rounds, trial.reason) for trial in trials]
