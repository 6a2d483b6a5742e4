"""The page and its figures as files: complete, self-contained, escaped, the same every time, and clear about gaps."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_run import DEFENDERS, make_run, png_size
from matplotlib.figure import Figure

from tsdf_ray.errors import UserError
from tsdf_ray.report import write_report
from tsdf_ray.report.charts import _VARIABLES, end_labels, themed
from tsdf_ray.report.data import Run, Value
from tsdf_ray.report.doses import TITLES
from tsdf_ray.report.figures import all_charts
from tsdf_ray.report.grids import matrix
from tsdf_ray.report.page import render
from tsdf_ray.report.pictures import pair_strips
from tsdf_ray.report.tables import duration, entry, phases
from tsdf_ray.report.transfers import transfer_tables

FIGURES = ("edit_success", "protection", "decay_sr_mask", "decay_edit_success", "persistence", "yield", "duq")


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def _text(root: Path) -> str:
    """The page without its charts, which take most of the time."""
    return render(Run.load(root), {})


def _change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def written(fake_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(fake_run, tmp_path_factory.mktemp("written") / "run"))
    write_report(root)
    return root


def test_writes_page_and_figures_and_leaves_nothing_else(written: Path) -> None:
    assert {p.name for p in (written / "figures").iterdir()} == {f"{name}.png" for name in FIGURES}
    for name in FIGURES:
        width, height = png_size((written / "figures" / f"{name}.png").read_bytes())
        assert width >= 900
        assert height >= 300
    assert not list(written.rglob("*.part"))


def test_page_is_the_same_every_time(written: Path) -> None:
    before = {p: p.read_bytes() for p in [written / "report.html", *(written / "figures").iterdir()]}
    write_report(written)
    assert {p: p.read_bytes() for p in before} == before


def test_page_is_self_contained(written: Path) -> None:
    page = Tags()
    page.feed((written / "report.html").read_text())
    assert not {"script", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    for name, value in page.attributes:
        if name in {"src", "href", "xlink:href"}:
            assert value.startswith(("data:", "#"))
        assert not name.startswith("on")
    assert "url(http" not in (written / "report.html").read_text()


def test_ids_are_unique(written: Path) -> None:
    page = Tags()
    page.feed((written / "report.html").read_text())
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for name, value in page.attributes if name in {"href", "xlink:href"} and value[:1] == "#"}
    assert targets <= set(ids)


def test_everything_from_the_run_is_escaped(run_copy: Path) -> None:
    """Names, titles, reasons and ids may hold markup; none of it may become a tag, in HTML or in SVG."""
    evil = "<script>alert(1)</script>"
    text = (run_copy / "summary.json").read_text().replace("tsdf/", f"{evil.replace('/', '|')}/")
    (run_copy / "summary.json").write_text(text)
    _change(run_copy / "summary.json", scenario=evil)
    _change(run_copy / "run.json", failed={f"match {evil}": f"NaN {evil}"}, machine={"system": evil}, status=evil)
    scenario = yaml.safe_load((run_copy / "scenario.yaml").read_text())
    (run_copy / "scenario.yaml").write_text(yaml.safe_dump(scenario | {"title": f'" onload="{evil}'}))
    run = Run.load(run_copy)
    charts = all_charts(run)
    html = render(run, {name: charts[name] for name in ("edit_success", "persistence", "duq")})
    page = Tags()
    page.feed(html)
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script" not in html
    assert "0000 &#34;quoted&#34; &amp; &lt;i&gt;.jpg" in html
    assert "bro&#34;ken&#39;&lt;b&gt;.jpg" in html


def test_svg_colours_follow_the_theme(written: Path) -> None:
    drawn = re.findall(r"<svg viewBox.*?</svg>", (written / "report.html").read_text(), flags=re.DOTALL)
    charts = [svg for svg in drawn if 'class="under"' not in svg]
    assert len(charts) == 2 * 6 + 4
    for svg in charts:
        assert "var(--" in svg
        assert not set(re.findall(r"#[0-9a-f]{6}\b", svg)) & set(_VARIABLES)


def test_every_colour_of_the_charts_has_a_variable_in_both_themes() -> None:
    css = (Path(__file__).parents[3] / "tsdf_ray/report/page.css").read_text()
    light, dark = css.split("prefers-color-scheme: dark", 1)
    for colour, name in _VARIABLES.items():
        assert f"--{name}: {colour};" in light
        assert re.search(rf"--{name}: #[0-9a-f]{{6}};", dark)


def test_themed_keeps_user_text_that_looks_like_an_id() -> None:
    assert "a id=x_1 b" in themed('<?xml?><svg viewBox="0 0 1 1"><text id="text_1">a id=x_1 b</text></svg>')


def test_numbers_of_the_page_are_those_of_the_run(written: Path) -> None:
    html = (written / "report.html").read_text()
    run = Run.load(written)
    for pair in run.pairs:
        value = run.last(pair)
        assert value.value is not None
        assert f'<div class="value">{100 * value.value:.0f}\u00a0%' in html
    assert "no edited pixel in the reference" in html
    assert "3 usable photos, fewer than a batch of 16" in html
    assert "&gt; 100" in html
    assert "truncated: 12 of 4,096 bytes" in html
    assert "3f" * 32 in html


def test_matrix_has_each_w_against_the_generators_from_its_round_on(fake_run: Path) -> None:
    run = Run.load(fake_run)
    cells = matrix(run, ("found", "mtcnn"), "protection")
    assert set(cells) == {(1, 0), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3)}
    assert all(value.known for value in cells.values())
    assert cells[3, 3] == run.row(("found", "mtcnn"), 3, 3, "after", "protection")


def test_transfer_tables_mark_what_the_defender_knows(run_copy: Path) -> None:
    def cell(value: float | None, white_box: bool, **more: Any) -> dict[str, Any]:
        return {"value": value, "low": 0.71, "high": 0.79, "n": 31, "white_box": white_box, **more}

    detectors = {
        "found": {"round": 3, "cells": {"retinaface": cell(0.75, False)}},
        "tsdf": {"round": 3, "cells": {"retinaface": cell(0.02, True), "<b>": cell(None, False, reason="no face")}},
    }
    head = {"of": "detectors", "attacker": "mtcnn", "models": ["retinaface", "<b>"], "rows": detectors}
    held_out = {"of": "generators", "metric": "protection", "attacker": "mtcnn", "models": ["hisd"], "rows": {}}
    assert "On other models" not in _text(run_copy)
    tables = [{**head, "metric": "duq"}, {**head, "metric": "recall"}, held_out]
    _change(run_copy / "summary.json", transfer=tables)
    found = transfer_tables(Run.load(run_copy))
    assert [(table.of, table.open) for table in found] == [
        ("detectors", True),
        ("detectors", False),
        ("generators", True),
    ]
    rows = dict(found[0].rows)
    known, missing = rows["tsdf"]
    assert known is not None
    assert missing is not None
    assert (known.entry.main, known.white_box, missing.entry.reason) == ("0.02", True, "no face")
    assert rows["found"][1] is None
    assert dict(found[1].rows)["found"][0].entry.main == "75\u00a0%"  # type: ignore[union-attr]
    text = _text(run_copy)
    assert "On other models" in text
    assert text.count('class="white"') == 2  # in both detector tables
    assert "<b></th>" not in text
    assert "&lt;b&gt;</th>" in text


def test_contamination_is_drawn_for_attackers_that_differ_in_the_share_alone(run_copy: Path) -> None:
    run = Run.load(run_copy)
    assert "contamination" not in all_charts(run)
    one = run.scenario["attackers"]["retinaface"]
    scenario = {**run.scenario, "attackers": {"retinaface": one, "mtcnn": one | {"collect": {"protected": 0.25}}}}
    (run_copy / "scenario.yaml").write_text(yaml.safe_dump(scenario))
    changed = Run.load(run_copy)
    chart = all_charts(changed)["contamination"]
    assert [panel.title for panel in chart.panels] == list(TITLES.values())
    figure = Figure()
    chart.panels[0].draw(axes := figure.add_subplot())
    lines = [line for line in axes.get_lines() if line.get_marker() not in {"", "None"}]
    drawn = {(round(x * 4) / 4, round(y, 9)) for line in lines for x, y in zip(*line.get_data(), strict=True)}
    shares = {"mtcnn": 0.25, "retinaface": 1.0}
    wanted = {(shares[a], round(changed.last((d, a)).value or -1, 9)) for d, a in changed.pairs}
    assert drawn == wanted
    assert len(wanted) == 4


@pytest.mark.parametrize("missing", ["samples", "events.jsonl", "manifest.jsonl", "tables/images.parquet"])
def test_a_page_without_the_optional_parts(run_copy: Path, missing: str) -> None:
    path = run_copy / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "After 3 rounds" in _text(run_copy)


@pytest.mark.parametrize("missing", ["run.json", "summary.json", "scenario.yaml", "tables/metrics.parquet"])
def test_a_missing_part_is_named(run_copy: Path, missing: str) -> None:
    (run_copy / missing).unlink()
    with pytest.raises(UserError, match=re.escape(missing)):
        write_report(run_copy)
    assert not (run_copy / "report.html").exists()


@pytest.mark.parametrize("damaged", ["run.json", "summary.json", "tables/metrics.parquet"])
def test_a_damaged_part_is_named(run_copy: Path, damaged: str) -> None:
    (run_copy / damaged).write_bytes(b"{not")
    with pytest.raises(UserError, match=re.escape(damaged)):
        write_report(run_copy)


def test_damaged_samples_are_named(run_copy: Path) -> None:
    next((run_copy / "samples/tsdf-vs-mtcnn-s0").glob("round-003*")).write_bytes(b"12345678")
    with pytest.raises(UserError, match=r"round-003\.safetensors"):
        _text(run_copy)


def test_an_unfinished_run_says_so(run_copy: Path) -> None:
    _change(run_copy / "run.json", status="stopped", failed={"tsdf-vs-mtcnn-s1": "loss is NaN in step 12"})
    html = _text(run_copy)
    assert "This run is not complete (status: stopped)" in html
    assert "1 match failed" in html
    assert "loss is NaN in step 12" in html


def test_an_unfinished_match_shows_the_rounds_it_has(run_copy: Path) -> None:
    summary = json.loads((run_copy / "summary.json").read_text())
    for values in summary["pairs"]["tsdf/mtcnn"].values():
        if isinstance(values, list):
            values[1:] = [None, None]
    (run_copy / "summary.json").write_text(json.dumps(summary))
    run = Run.load(run_copy)
    assert len(run.over_rounds(("tsdf", "mtcnn"), "protection")) == 1
    assert run.rounds == 3
    assert run.last(("tsdf", "mtcnn")).known
    assert "This match has 1 of 3 rounds" in _text(run_copy)


def test_a_run_whose_matches_all_failed_says_why(run_copy: Path) -> None:
    shutil.rmtree(run_copy / "tables")
    _change(run_copy / "summary.json", pairs={}, status="failed")
    _change(run_copy / "run.json", status="failed", failed={"tsdf-vs-mtcnn-s0": "loss is NaN in step 3"})
    html = write_report(run_copy).read_text()
    assert "Nothing can be said yet" in html
    assert "loss is NaN in step 3" in html


def test_smallest_race(tmp_path: Path) -> None:
    """One round, one seed, a pair whose metrics are null, and a torn last event line."""
    root = make_run(tmp_path / "run", seeds=(3,), rounds=1, photos=4, size=64)
    summary = json.loads((root / "summary.json").read_text())
    summary["pairs"] = {"found/mtcnn": summary["pairs"]["found/mtcnn"]}
    summary["pairs"]["found/mtcnn"]["yield"] = [None]
    (root / "summary.json").write_text(json.dumps(summary))
    with (root / "events.jsonl").open("a") as file:
        file.write('{"match": "fou')
    html = write_report(root).read_text()
    assert "After 1 round, " in html
    assert "1 seed: the intervals cover photos of one race, not races." in html


def test_strips_show_boxes_and_reduce_large_pictures(tmp_path: Path) -> None:
    run = Run.load(make_run(tmp_path / "run", seeds=(0,), rounds=1, photos=4, size=272))
    strips = pair_strips(run, ("tsdf", "mtcnn"))
    assert strips is not None
    first = strips.strips[0]
    assert [p.caption for p in first.pictures][:3] == ["Photo", "Published", "Difference × 10"]
    clean, published = (p for p in first.pictures if p.caption.startswith("Detected"))
    assert {(b.detector, b.white_box) for b in clean.boxes} == {("retinaface", True), ("mtcnn", False)}
    assert [b.detector for b in published.boxes] == ["mtcnn"]
    assert published.notes == ("mtcnn: a face", "retinaface: no face")
    assert first.size == 272
    assert len(first.pictures) == 8
    assert len(first.pictures[0].uri) < 60_000


def test_cells_of_the_table() -> None:
    assert entry("protection", Value(0.876, 0.8, 0.9, 144)).main == "88\u00a0%"
    assert entry("protection", Value(0.876, 0.8, 0.9, 144)).interval == "80\u202f–\u202f90"
    assert entry("duq", Value(-0.5, -1.25, 0.0, 9)).interval == "−1.25\u202f–\u202f0.00"
    assert entry("psnr", Value(31.26)).main == "31.3"
    assert entry("half_life", Value(None, censored_above=300)).main == "> 300"
    assert entry("half_life", Value(40.0, 30.0, None, 9, None, 100)).interval == "30\u202f–\u202f> 100"
    assert entry("half_life", Value(None, reason="did not retrain", censored_above=0.0)).reason == "did not retrain"
    assert entry("ssim", Value(None, reason="no photo")).reason == "no photo"


def test_time_per_phase_adds_up_over_matches(fake_run: Path) -> None:
    found = {(p.role, p.step): p.seconds for p in phases(Run.load(fake_run))}
    matches = 2 * 2 * len(DEFENDERS)
    assert found["attacker", "retrain"] == pytest.approx(17.5 * 3 * matches, abs=1e-3)
    assert max(p.share for p in phases(Run.load(fake_run))) == 1.0
    assert [duration(s) for s in (7.6, 301.2, 7384)] == ["8 s", "5 min 1 s", "2 h 3 min"]


def test_labels_do_not_touch() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((4, 3))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_ylim(0, 1)
    end_labels(axes, [(0.99, "a", "k"), (0.98, "b", "k"), (1.0, "c", "k"), (0.0, "d", "k"), (0.0, "e", "k")], 1.0)
    boxes = sorted((t.get_window_extent().y0, t.get_window_extent().y1) for t in axes.texts)
    assert len(boxes) == 5
    assert all(lower[1] <= upper[0] + 1.5 for lower, upper in itertools.pairwise(boxes))
