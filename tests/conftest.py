"""Fixtures for the whole suite: assets beside the checkout, one Ray cluster for the session."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.pop("RAY_ADDRESS", None)
# Test modules are imported by path (importlib mode), so what several of them use must be found by name.
sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch
from headless_chromium import Chromium
from hypothesis import settings

# Machines are shared: how long an example takes says nothing of the code.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of real photos and third-party weights; the test is skipped where it is absent."""
    if not ASSETS.is_dir():
        pytest.skip("../shared/assets is absent")
    return ASSETS


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray cluster of two CPUs for the session; only what was started here is shut down."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=150 << 20,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """One headless Chromium for the session; skips where it is not installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed")
    with Chromium(program) as browser:
        yield browser


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> pytest.TestReport:
    """On CI, with the assets present, a skipped `assets` or `browser` test is a failure: green must mean tested."""
    report = pytest.TestReport.from_item_and_call(item, call)
    required = item.get_closest_marker("assets") or item.get_closest_marker("browser")
    if report.skipped and required and os.environ.get("CI") == "true" and ASSETS.is_dir():
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped on CI although ../shared/assets is present"
    return report
