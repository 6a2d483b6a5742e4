"""A made-up search for the tests of its report."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

# Test modules are imported by path (importlib mode), so their helpers must be found by name.
sys.path.insert(0, str(Path(__file__).parent))

from fake_search import make_search


@pytest.fixture(scope="session")
def fake_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of two objectives; tests that change it copy it first."""
    return make_search(tmp_path_factory.mktemp("search"))


@pytest.fixture
def search_copy(fake_search: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(fake_search, tmp_path / "search"))
