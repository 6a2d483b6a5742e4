"""A made-up search for the tests of its report."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Test modules are imported by path (importlib mode), so their helpers must be found by name.
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "tsdf_ray" / "report"))

from fake_search import make_search
from headless_chromium import Chromium


@pytest.fixture(scope="session")
def fake_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of two objectives; tests that change it copy it first."""
    return make_search(tmp_path_factory.mktemp("search"))


@pytest.fixture
def search_copy(fake_search: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(fake_search, tmp_path / "search"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """One headless Chromium for the session; skips where it is not installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed")
    with Chromium(program) as browser:
        yield browser
