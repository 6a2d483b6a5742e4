"""What the chaos tests compare with."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos_commands import RACE
from saboteur import small_game

from tsdf_ray import api
from tsdf_ray.scenario import Scenario


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small race of `chaos_commands`, undisturbed."""
    root = tmp_path_factory.mktemp("undisturbed") / "run"
    api.play(Scenario.load("smoke", RACE), root, executor="inprocess", report=False)
    return root


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The match of `saboteur`, played in process."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    assert api.play(small_game(), out, executor="inprocess", report=False).status == "complete"
    return out
