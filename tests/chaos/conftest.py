"""What the chaos tests compare with."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos_commands import RACE

from tsdf_ray import api
from tsdf_ray.scenario import Scenario


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small race of `chaos_commands`, undisturbed."""
    root = tmp_path_factory.mktemp("undisturbed") / "run"
    api.play(Scenario.load("smoke", RACE), root, executor="inprocess", report=False)
    return root
