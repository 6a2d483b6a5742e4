"""Errors become one message and an exit code; signals stop a run once gently, twice at once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tsdf_ray.cli import outcome
from tsdf_ray.cli.group import Commands
from tsdf_ray.cli.stopping import stoppable
from tsdf_ray.errors import MatchFailed, Stopped, UserError


def run_with(error: BaseException) -> Any:
    app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)

    @app.command("go")
    def go() -> None:
        raise error

    @app.callback()
    def root() -> None:
        """A group, as ours."""

    return CliRunner().invoke(app, ["go"])


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("mine.yaml:3: rounds: is wrong"), 2, "error: mine.yaml:3: rounds: is wrong\n"),
        (MatchFailed("a-vs-b-s0: loss is NaN"), 1, "failed: a-vs-b-s0: loss is NaN\n"),
        (Stopped("stopped as asked"), 130, "stopped as asked\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_named_errors(error: BaseException, code: int, message: str) -> None:
    result = run_with(error)
    assert result.exit_code == code
    assert result.stderr == message
    assert result.stdout == ""


def test_a_bug_keeps_its_traceback() -> None:
    result = run_with(ZeroDivisionError("a bug"))
    assert isinstance(result.exception, ZeroDivisionError)


def child(body: str) -> subprocess.Popen[str]:
    """A process in a group of its own that says `ready` and then runs on."""
    code = textwrap.dedent(
        """
        import sys, time
        import typer
        from tsdf_ray.cli.group import Commands
        from tsdf_ray.cli.stopping import stoppable
        from tsdf_ray.errors import Stopped
        class Flag:
            asked = False
            def ask(self): self.asked = True
            def check(self):
                if self.asked: raise Stopped("stopped as asked")
        app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
        @app.callback()
        def root(): pass
        @app.command("go")
        def go():
            flag = Flag()
            with stoppable(flag.ask):
                print("ready", flush=True)
        """
    ) + textwrap.indent(textwrap.dedent(body), " " * 8)
    code += "\nsys.argv = ['x', 'go']\napp()\n"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_first_signal_stops_gently(number: signal.Signals, code: int) -> None:
    process = child(
        """
        while True:
            time.sleep(0.02)
            try:
                flag.check()
            finally:
                if flag.asked: print("saved", flush=True)
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == "saved\n"
    assert "stopping: the running step ends" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_second_signal_leaves_at_once(number: signal.Signals, code: int) -> None:
    process = child(
        """
        while not flag.asked: time.sleep(0.01)
        print("asked", flush=True)
        try:
            while True: time.sleep(0.01)
        finally:
            print("cleaned up", flush=True)
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == ""


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stoppable(lambda: None):
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


SUMMARY = {
    "pairs": {
        "found/mtcnn": {
            "protection": [{"value": 0.9, "low": 0.8, "high": 0.95, "n": 9}, {"value": 0.25, "low": 0.2, "high": 0.3}],
            "hair_edit_success_before": [{"value": 0.33}, {"value": 0.41}],
            "hair_edit_success_after": [{"value": 0.9}, {"value": None, "reason": "no photo"}],
            "yield": [None],
        }
    }
}


def finished(tmp_path: Path, failed: dict[str, str]) -> Any:
    return SimpleNamespace(path=tmp_path, place=str(tmp_path), summary=SUMMARY, info={"failed": failed})


def test_outcome_shows_the_last_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.html").write_text("<html></html>")
    outcome.show(finished(tmp_path, {}))
    out = capsys.readouterr().out
    assert re.search(r"found/mtcnn +0\.25 \[0\.20, 0\.30\] +0\.41 +- +-", out)
    assert f"report: {tmp_path / 'report.html'}" in out


def test_outcome_names_failed_matches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        outcome.show(finished(tmp_path, {"found-vs-mtcnn-s0": "round 2: loss is not finite"}))
    assert caught.value.exit_code == 1
    shown = capsys.readouterr()
    assert "found-vs-mtcnn-s0: round 2: loss is not finite" in shown.err
    assert "0.25" in shown.out
