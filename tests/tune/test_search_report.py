"""The page, the figures and the tables of a search: complete, self-contained, escaped, and clear about gaps."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fake_search import OBJECTIVES, PAPER, PARAMETERS, cell, make_search, scenario, section
from headless_chromium import Chromium
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from tsdf_ray.errors import UserError
from tsdf_ray.store.trials import Report, TrialsTable
from tune.answer import headline
from tune.figures import all_charts
from tune.labels import Label, place_labels
from tune.report import render, write_search_report, write_tables
from tune.results import Results
from tune.words import short_names

FIGURES = {"front", "replay", "map", "importance", "parallel", "history"}


class Page(HTMLParser):
    """Text of a page without its style, and every tag and attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[\s\u00a0\u2060]+", " ", " ".join(self.words))


def _page(root: Path) -> Page:
    """The page without its charts, which take most of the time."""
    return Page(render(Results.load(root), {}))


@pytest.fixture(scope="module")
def written(fake_search: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(fake_search, tmp_path_factory.mktemp("written") / "search"))
    write_tables(root)
    assert write_search_report(root) == root / "report.html"
    return root


def test_every_figure_stands_in_the_page_and_beside_it(written: Path) -> None:
    page = Page((written / "report.html").read_text())
    assert {path.stem for path in (written / "figures").glob("*.png")} == FIGURES
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (written / "figures").glob("*.png"))
    # Two objectives have two panels of replay, importance and history each.
    assert page.tags.count("svg") == 3 + 2 * 3
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for name, value in page.attributes:
        if name in {"src", "href", "xlink:href"}:
            assert value.startswith(("#", "data:")), value
    assert "script" not in page.tags


def test_the_answer_names_the_ends_of_the_front_and_what_was_known(fake_search: Path) -> None:
    results, page = Results.load(fake_search), _page(fake_search)
    first, last = results.front[0], results.front[-1]
    assert f"{len(results.front)} form the front, from trial {first.number}" in page.text
    assert f"to trial {last.number} (" in page.text
    replayed = results.players[0].replayed["protection"]
    assert replayed.value is not None
    assert f"protection {100 * replayed.value:.1f} %" in page.text
    assert "Start points, on unseen people: paper (protection" in page.text
    assert "Baselines, on unseen people: found (protection" in page.text
    assert f"best/trial_{first.number}.yaml" in page.text
    for words in ("optuna-dashboard sqlite:///DIR/optuna.db", "tensorboard --logdir", "trial 5", "not ended"):
        assert words in page.text


def test_replayed_values_are_measured_as_the_search_measures(fake_search: Path) -> None:
    results = Results.load(fake_search)
    pairs = json.loads((fake_search / "replay" / "summary.json").read_text())["pairs"]
    for player in results.players:
        cells = [pairs[f"{player.name}/{attacker}"]["protection"][1] for attacker in ("finetune", "mtcnn")]
        worst = min(cells, key=lambda cell: cell["value"])
        found = player.replayed["protection"]
        assert (found.value, found.low, found.high) == (worst["value"], worst["low"], worst["high"])
        assert found.note is not None
        one = player.replayed["starving"]
        assert one.low == pairs[f"{player.name}/finetune"]["yield"][1]["low"]
        assert one.note is None
    assert [player.kind for player in results.players] == ["best"] * 3 + ["start", "baseline"]
    # Baselines were measured under the conditions of the search too.
    bases = json.loads((fake_search / "baselines" / "summary.json").read_text())["pairs"]
    assert results.players[-1].searched["starving"].value == bases["found/finetune"]["yield"][1]["value"]


def test_replays_of_their_own_are_read_as_one_replay_is(search_copy: Path) -> None:
    """Where both sides are searched every setting has a run of its own, with the scenario's own names."""
    together = Results.load(search_copy)
    summary = json.loads((search_copy / "replay" / "summary.json").read_text())
    shutil.rmtree(search_copy / "replay")
    for player in together.players:
        if player.trial is not None and player.replayed:
            own = search_copy / "replay" / player.name
            own.mkdir(parents=True)
            pairs = {f"tsdf/{pair.split('/')[1]}": cells for pair, cells in summary["pairs"].items()
                     if pair.split("/")[0] == player.name}  # fmt: skip
            (own / "run.json").write_text("{}")
            (own / "summary.json").write_text(json.dumps(summary | {"pairs": pairs}))
    apart = Results.load(search_copy)
    assert apart.replay is None
    assert "replay" not in apart.notes
    assert len(apart.replays) > 1
    for player in together.players:
        if player.trial is not None:
            other = next(found for found in apart.players if found.name == player.name)
            assert other.replayed == player.replayed


def test_the_trials_table_has_every_trial_once_and_typed(written: Path) -> None:
    table = pq.read_table(written / "tables" / "trials.parquet")
    rows = table.to_pylist()
    assert [row["number"] for row in rows] == list(range(24))
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert types["param.defenders.tsdf.poison.steps"] == "int64"
    assert types["param.defenders.tsdf.tau"] == "double"
    assert types["param.defenders.tsdf.poison.rule"] == "string"
    assert types["started"] == "timestamp[ms, tz=UTC]"
    trials = TrialsTable(written / "trials.jsonl").trials
    for row, trial in zip(rows, trials, strict=True):
        for path in PARAMETERS:
            assert row[f"param.{path}"] == trial.params.get(path)
        assert (row["state"], row["reason"], row["point"]) == (trial.state, trial.reason, trial.point)
        last = trial.last
        assert row["value.protection"] == (last.values["protection"] if last else None)
        assert row["violation.visibility"] == (last.violations["visibility"] if last else None)
        assert row["metric.tsdf/mtcnn.ssim"] == (last.metrics["tsdf/mtcnn"]["ssim"] if last else None)
        assert row["feasible"] == (last.feasible if last else None)
        assert row["seconds"] == trial.seconds
    assert rows[5]["feasible"] is None
    assert rows[6]["ended"] is None


@pytest.mark.parametrize(
    ("values", "kind", "cells"),
    [
        ([1, 2], "int64", [1, None]),
        ([1, 2.5], "double", [1.0, None]),
        ([True, False], "bool", [True, None]),
        ([1, None], "string", ["1", None]),
        ([None, 1], "string", ["null", None]),
        ([0.1, None], "string", ["0.1", None]),
        ([["mtcnn"], ["retinaface"]], "string", ['["mtcnn"]', None]),
    ],
)
def test_columns_of_choices(tmp_path: Path, values: list[Any], kind: str, cells: list[Any]) -> None:
    lists = isinstance(values[0], list)
    path = "defenders.tsdf.detectors" if lists else "defenders.tsdf.tau" if None in values else "defenders.tsdf.beta"
    parameters = {path: {"kind": "choice", "values": values}}
    make_search(tmp_path, section(parameters=parameters, trials=1, start={}), replay=False, baselines=False)
    (tmp_path / "trials.jsonl").unlink()
    table = TrialsTable(tmp_path / "trials.jsonl")
    first = json.dumps(values[0]) if lists else values[0]
    table.asked({path: first}, None)
    table.asked({}, None)
    write_tables(tmp_path)
    written = pq.read_table(tmp_path / "tables" / "trials.parquet")
    assert str(written.schema.field(f"param.{path}").type) == kind
    assert written[f"param.{path}"].to_pylist() == cells


def test_search_json(written: Path) -> None:
    content = json.loads((written / "search.json").read_text())
    assert content["schema"] == 1
    assert content["trials"] == {"complete": 16, "pruned": 6, "failed": 1, "running": 1}
    results = Results.load(written)
    assert content["front"] == [trial.number for trial in results.front]
    assert [best["trial"] for best in content["best"]] == [trial.number for trial in results.best[0]]
    assert content["best"][0]["file"] == f"best/trial_{results.best[0][0].number}.yaml"
    assert content["best"][0]["params"] == results.best[0][0].params
    assert sum(content["importance"]["starving"].values()) == pytest.approx(1.0)
    found = {row["name"]: row for row in content["settings"]}
    assert found["paper"]["kind"] == "start"
    assert found["found"]["searched"]["protection"]["value"] is not None
    assert set(found["paper"]["replayed"]) == {"protection", "starving", "visibility"}
    assert "no interval" in found["paper"]["replayed"]["visibility"]["note"]


@pytest.mark.parametrize("objectives", [1, 3])
def test_one_and_three_objectives(tmp_path: Path, objectives: int) -> None:
    make_search(tmp_path, section(objectives))
    results = Results.load(tmp_path)
    charts = all_charts(results)
    assert set(charts) == FIGURES
    assert len(charts["front"].panels) == objectives
    text = str(headline(results))
    assert ("The best of 16 complete trials is <b>trial" in text) == (objectives == 1)
    if objectives == 1:
        best = results.best[0][0]
        assert best.last is not None
        able = [
            t.last.values["protection"] for t in results.trials if t.state == "complete" and t.last and t.last.feasible
        ]
        assert best.last.values["protection"] == max(able)
    assert charts["front"].png().startswith(b"\x89PNG")
    assert all("<svg" in svg for svg in charts["front"].svgs())


def test_a_search_of_the_attacker(tmp_path: Path) -> None:
    search = section(
        1,
        parameters={"attackers.finetune.retrain.train.steps": {"kind": "int", "low": 1, "high": 100}},
        constraints={},
        start={},
        trials=2,
    )
    search["objectives"] = {"edits": {"metric": "protection", "direction": "minimize"}}
    made = scenario(search)
    (tmp_path / "scenario.yaml").write_text(made.as_yaml())
    (tmp_path / "run.json").write_text(json.dumps({"status": "complete"}))
    table = TrialsTable(tmp_path / "trials.jsonl")
    table.asked({"attackers.finetune.retrain.train.steps": 7}, None)
    table.reported(0, Report(1, {"edits": 0.4}, {}, {"tsdf/finetune": {"protection": 0.4}}, 1.0))
    table.ended(0, "complete")
    (tmp_path / "replay").mkdir()
    pairs = {"tsdf/trial_0": {"protection": [cell(0.45)]}, "tsdf/mtcnn": {"protection": [cell(0.8)]}}
    (tmp_path / "replay" / "summary.json").write_text(json.dumps({"pairs": pairs, "seeds": [2]}))
    results = Results.load(tmp_path)
    assert (results.side, results.player) == ("attackers", "finetune")
    assert [(p.name, p.kind, p.replayed["edits"].value) for p in results.players] == [
        ("trial_0", "best", 0.45),
        ("mtcnn", "baseline", 0.8),
    ]
    assert "45.0 %" in _page(tmp_path).text


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = '<img src=x onerror=alert(1)>&"'
    search = section(1, start={"points": {evil: PAPER}})
    search["objectives"] = {evil: OBJECTIVES["protection"]}
    make_search(tmp_path, search, name=evil)
    lines = (tmp_path / "trials.jsonl").read_text().replace('"point": "paper"', f'"point": {json.dumps(evil)}')
    (tmp_path / "trials.jsonl").write_text(lines)
    text = render(Results.load(tmp_path), all_charts(Results.load(tmp_path)))
    page = Page(text)
    assert "img" not in page.tags
    assert "died" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.text.count("<img src=x onerror=alert(1)>") > 5
    assert "the actor <died> & left no result" in page.text


def test_nothing_complete_yet(tmp_path: Path) -> None:
    make_search(tmp_path, section(), status="running", replay=False, baselines=False)
    lines = (tmp_path / "trials.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"complete"' not in line]
    (tmp_path / "trials.jsonl").write_text("".join(kept))
    write_tables(tmp_path)
    write_search_report(tmp_path)
    page = Page((tmp_path / "report.html").read_text())
    assert "No best setting yet: no trial is complete (17 running, 6 pruned, 1 failed)" in page.text
    assert "This search is not complete (status: running)" in page.text
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {"history"}
    assert json.loads((tmp_path / "search.json").read_text())["best"] == []


def test_no_trial_at_all(tmp_path: Path) -> None:
    make_search(tmp_path, section(), status="running", replay=False, baselines=False)
    (tmp_path / "trials.jsonl").unlink()
    write_tables(tmp_path)
    write_search_report(tmp_path)
    assert "none was begun" in Page((tmp_path / "report.html").read_text()).text
    assert pq.read_table(tmp_path / "tables" / "trials.parquet").num_rows == 0


def test_without_replay_and_baselines_the_page_says_so(tmp_path: Path) -> None:
    make_search(tmp_path, section(replay={"seeds": []}), replay=False, baselines=False)
    page = _page(tmp_path)
    assert "Not replayed (off: `search.replay.seeds` is empty)" in page.text
    assert "found" not in [player.name for player in Results.load(tmp_path).players]
    assert "replay" not in all_charts(Results.load(tmp_path))
    assert "Baselines not played" in page.text


def test_a_best_setting_that_breaks_a_constraint_in_the_replay(search_copy: Path) -> None:
    best = Results.load(search_copy).best[0][0]
    path = search_copy / "replay" / "summary.json"
    content = json.loads(path.read_text())
    for attacker in ("finetune", "mtcnn"):
        content["pairs"][f"trial_{best.number}/{attacker}"]["psnr"][1]["value"] = 30.5
    path.write_text(json.dumps(content))
    assert f"in the replay trial {best.number} breaks visibility at least 32.0: 30.5" in _page(search_copy).text


def test_an_unfinished_replay_and_missing_cells(search_copy: Path) -> None:
    path = search_copy / "replay" / "summary.json"
    content = json.loads(path.read_text())
    content["pairs"].pop("paper/mtcnn")
    content["pairs"]["found/mtcnn"]["protection"][1] = {"value": None, "reason": "judge <failed>", "n": 0}
    path.write_text(json.dumps(content))
    text = _page(search_copy).text
    assert "judge <failed>" in text
    found = {player.name: player.replayed for player in Results.load(search_copy).players}
    assert found["found"]["protection"].value is None
    # A worst case over fewer attackers than the others had would flatter it.
    assert found["paper"]["protection"].value is None
    assert found["paper"]["protection"].reason == "tsdf/mtcnn was not played"
    path.unlink()
    assert "Replay not finished yet" in _page(search_copy).text
    path.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Results.load(search_copy)


def test_a_run_that_is_no_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run directory"):
        write_search_report(tmp_path)
    make_search(tmp_path / "s", section())
    scenario = tmp_path / "s" / "scenario.yaml"
    scenario.write_text(scenario.read_text().split("\nsearch:")[0] + "\n")
    with pytest.raises(UserError, match="is no search"):
        write_tables(tmp_path / "s")


def test_the_same_files_give_the_same_page(written: Path) -> None:
    first = (written / "report.html").read_bytes()
    write_search_report(written)
    assert (written / "report.html").read_bytes() == first


def test_labels_move_out_of_each_others_way() -> None:
    figure = Figure((5, 4))
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    place_labels(axes, [Label(0.5 + 0.01 * i, 0.5, f"trial {i}", "#000000") for i in range(5)], [])
    canvas.draw()
    # Of the texts alone, without their lines.
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])


def test_short_names() -> None:
    assert short_names(["a.b.tau", "a.b.share.fraction"]) == {"a.b.tau": "tau", "a.b.share.fraction": "share.fraction"}
    assert short_names(["a.b.tau"]) == {"a.b.tau": "tau"}
    assert short_names(["a.x.tau", "a.y.tau"]) == {"a.x.tau": "x.tau", "a.y.tau": "y.tau"}
    assert short_names([]) == {}


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_in_a_browser(written: Path, chromium: Chromium, width: int, dark: bool) -> None:
    seen = chromium.look((written / "report.html").as_uri(), width, dark=dark)
    assert seen.errors == []
    assert seen.requests == []
    assert seen.scroll_width <= seen.inner_width
