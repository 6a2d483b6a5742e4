"""A made-up run and a headless browser for the report's tests."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

# Test modules are imported by path (importlib mode), so their helpers must be found by name.
sys.path.insert(0, str(Path(__file__).parent))

from fake_run import make_run


@pytest.fixture(scope="session")
def fake_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with two seeds; tests that change it copy it first."""
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run_copy(fake_run: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(fake_run, tmp_path / "run"))
