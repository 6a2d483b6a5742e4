"""Runs one test of a contract as pytest would, and says whether it holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

Caught = Callable[[object, object, str], str]


@pytest.fixture
def caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Caught:
    """(contract with a sound plug-in, the same with a broken one, the test's name) -> what the test says of the latter.

    Fails unless the test passes for the sound plug-in and fails, by an assertion, for the broken one.
    """

    def run(sound: object, broken: object, name: str) -> str:
        def call(contract: object) -> None:
            test = getattr(contract, name)
            at_hand = {"tmp_path": tmp_path, "monkeypatch": monkeypatch}
            test(**{key: at_hand[key] for key in inspect.signature(test).parameters})

        call(sound)
        with pytest.raises((AssertionError, pytest.fail.Exception)) as failure:
            call(broken)
        return str(failure.value)

    return run
