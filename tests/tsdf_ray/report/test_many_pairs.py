"""Runs of hundreds of pairs: some are drawn, all are told, and the page stays small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tsdf_ray.game.spec import all_matches
from tsdf_ray.report import many, write_report
from tsdf_ray.report.answer import HOLDS, Cell, _against, answer
from tsdf_ray.report.data import DRAWN, Run, Value
from tsdf_ray.report.figures import all_charts
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.finish import finish_run
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.recorder import Recorder
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.testing.rounds import made_up_materials, made_up_round

DEFENDERS, ATTACKERS = 7, 5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """35 pairs of made-up rounds."""
    defenders = ", ".join(f"d{i}: {{kind: found, detectors: [mtcnn]}}" for i in range(DEFENDERS))
    kind = "{collect: {photos: 4}, prepare: {detectors: [mtcnn]}}"
    attackers = ", ".join(f"a{i}: {kind}" for i in range(ATTACKERS))
    changes = (f"defenders={{{defenders}}}", f"attackers={{{attackers}}}", "rounds=1", "evaluation.resamples=100")
    game = Scenario.load("smoke", changes)
    run = RunDirectory.create(tmp_path_factory.mktemp("many") / "run", game)
    manifest, materials = Manifest(run.root / "manifest.jsonl"), made_up_materials(0)
    recorder = Recorder(run.root, manifest)
    for match in all_matches(game):
        recorder.record(match, made_up_round(match, 1, materials))
    finish_run(run, game, manifest, "complete", 1.0)
    run.close()
    return run.root


def test_the_strongest_against_the_worst_are_drawn(root: Path) -> None:
    run = Run.load(root)
    found = answer(run)
    part = many.drawn(run, found.ranked)
    assert len(run.pairs) == DEFENDERS * ATTACKERS
    assert set(part.defenders) == set(found.ranked[: many.DEFENDERS])
    assert len(part.pairs) == many.DEFENDERS * many.ATTACKERS <= DRAWN
    assert all(len(chart.panels) <= DRAWN for chart in all_charts(part).values())
    pair = part.pairs[0]
    assert part.row(pair, 1, 1, "after", "protection").known, "all rows of what is drawn are at hand"
    assert not run.row(pair, 1, 1, "after", "protection").known, "of the others only what the answer needs"
    assert run.row(pair, 1, 1, "reference", "protection").known
    assert {table["attacker"] for table in part.summary["transfer"]} == set(part.attackers)


def test_every_pair_has_its_verdict_by_its_own_photos(root: Path) -> None:
    run = Run.load(root)
    cells = answer(run).cells
    assert list(cells) == run.pairs
    assert all(cell.gain.known for cell in cells.values())


def test_one_table_has_every_defender_against_every_attacker(root: Path) -> None:
    run = Run.load(root)
    found = answer(run)
    grid = many.grid(run, found)
    assert [defender for defender, _ in grid.rows] == list(found.ranked)
    assert sorted(grid.attackers) == sorted(run.attackers)
    for defender, cells in grid.rows:
        assert list(cells) == [found.cells[defender, attacker] for attacker in grid.attackers]
    harm = [sum(found.cells[d, a].value.value or 0.0 for d in run.defenders) for a in grid.attackers]
    assert harm == sorted(harm)


def test_many_attackers_are_counted_and_the_ends_named() -> None:
    values = (0.4, 0.2, 0.9, 0.5, 0.3, 0.6, 0.7, 0.8, 0.45)
    cells = [Cell(("d", f"a{i}"), Value(v, v - 0.1, v + 0.1), Value(None), HOLDS) for i, v in enumerate(values)]
    text = str(_against(cells, full=True))
    assert text.startswith("9 attackers, from <b>a1</b> (20\u00a0% of forgeries fail, 95\u00a0% interval ")
    assert " to <b>a2</b> (90\u00a0%, " in text
    assert str(_against(cells[:8], full=False)).count("<b>") == 8


@pytest.mark.slow
def test_the_page_tells_of_all(root: Path) -> None:
    text = write_report(root).read_text()
    assert "This run has 35 pairs" in text
    table = text[text.index('<section id="everyone">') : text.index('<section id="numbers">')]
    assert len(re.findall(r">d\d against a\d<", table)) == DEFENDERS * ATTACKERS
    assert len(re.findall(r'title="d\d against a\d: ', table)) == DEFENDERS * ATTACKERS
    shown = text[text.index('<section id="numbers">') :]
    assert len(re.findall(r"<summary><span class=.s\d.>d\d</span> against a\d", shown)) == DRAWN
    assert len(text) < 3_000_000


def test_a_sentence_names_some() -> None:
    from markupsafe import Markup

    from tsdf_ray.report.answer import NAMED, listed

    names = [Markup(f"a{i}") for i in range(NAMED + 5)]
    assert str(listed(names[:NAMED])).endswith(f"a{NAMED - 2} and a{NAMED - 1}")
    assert str(listed(names)).endswith(f"a{NAMED - 2} and 6 more")
