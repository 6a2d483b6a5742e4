"""The page in a real browser: no error, no request, no horizontal scroll, on a desk and on a phone, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_run import make_run
from headless_chromium import Chromium

from tsdf_ray.report.data import Run
from tsdf_ray.report.figures import all_charts
from tsdf_ray.report.page import render

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    run = Run.load(make_run(root, name=HOSTILE, title='<img src="x" onerror="alert(2)">', seeds=(0,), photos=8))
    page = root / "report.html"
    page.write_text(render(run, all_charts(run)))
    return page


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_opens_cleanly(chromium: Chromium, page: Path, width: int, dark: bool) -> None:
    seen = chromium.look(page.as_uri(), width, dark=dark)
    assert seen.errors == []
    assert seen.requests == []
    assert seen.inner_width == width
    assert seen.scroll_width <= seen.inner_width
    assert seen.images > 0
    assert seen.broken_images == 0
    assert HOSTILE in seen.text
    assert "still works against" in seen.text or "worn down" in seen.text


@pytest.mark.browser
def test_the_check_sees_errors_requests_dialogs_and_scroll(chromium: Chromium, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<meta name="viewport" content="width=device-width"><div style="width:900px">wide</div>'
        '<img src="missing.png"><script>alert(1); console.error("no good"); undefined.x</script>'
    )
    seen = chromium.look(bad.as_uri(), 390)
    assert seen.scroll_width > 390
    assert seen.broken_images == 1
    assert [address.rsplit("/", 1)[1] for address in seen.requests] == ["missing.png"]
    found = " ".join(seen.errors)
    assert "no good" in found
    assert "dialog: 1" in found
    assert "TypeError" in found
