"""The end of a run in pieces equals the end in one piece, and needs few open files."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsdf_ray.game.spec import all_matches
from tsdf_ray.metrics import aggregate, summarise
from tsdf_ray.metrics.transfer import transfer
from tsdf_ray.scenario import Scenario
from tsdf_ray.store import finish as ends
from tsdf_ray.store.finish import finish_run
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.recorder import Recorder
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.testing.rounds import made_up_materials, made_up_round

ATTACKER = "{collect: {photos: 4}, prepare: {detectors: [mtcnn]}}"
GAME = Scenario.load(
    "smoke",
    (
        "rounds=2",
        "seeds=[3, 1]",
        "evaluation.resamples=100",
        "defenders={a: {kind: found, detectors: [mtcnn]}, b: {kind: noise}}",
        f"attackers={{x: {ATTACKER}, y: {ATTACKER}}}",
    ),
)
LEFT_OUT = ("a-vs-x-s3", "b-vs-y-s3", "b-vs-y-s1")
"""Failed in their first round: a pair that begins with the second seed, and one without any."""


def record(root: Path) -> list[Path]:
    """Every match but those, the last one first; their parts in the order of the scenario."""
    recorder = Recorder(root, Manifest(root / "manifest.jsonl"))
    matches = [match for match in all_matches(GAME) if match.id not in LEFT_OUT]
    for match in reversed(matches):
        for r in (1, 2):
            recorder.record(match, made_up_round(match, r, made_up_materials(match.seed)))
    return [root / f"parts/{match.id}/round-{r:03d}.parquet" for match in matches for r in (1, 2)]


@pytest.mark.parametrize("group", [1, 500])
def test_in_pieces_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    monkeypatch.setattr(ends, "GROUP_ROWS", group)
    run = RunDirectory.create(tmp_path / "run", GAME)
    images = pa.concat_tables([pq.read_table(part) for part in record(run.root)])
    finish_run(run, GAME, Manifest(run.root / "manifest.jsonl"), "complete", 1.0)
    run.close()
    metrics = aggregate(images, GAME.evaluation.resamples, GAME.seeds[0])
    assert pq.read_table(run.root / "tables" / "images.parquet").equals(images)
    assert pq.read_table(run.root / "tables" / "metrics.parquet").equals(metrics)
    summary = json.loads((run.root / "summary.json").read_text())
    wanted = {"pairs": summarise(metrics, GAME), "transfer": transfer(metrics, GAME.model_dump(mode="json"))}
    assert {name: summary[name] for name in wanted} == json.loads(json.dumps(wanted))
    assert list(summary["pairs"]) == ["a/x", "a/y", "b/x"]
    assert summary["transfer"]


def test_few_files_are_open_at_a_time(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", GAME)
    recorder = Recorder(run.root, Manifest(run.root / "manifest.jsonl"))
    for defender in range(24):
        game = Scenario.load("smoke", (f"defenders={{d{defender}: {{kind: found}}}}", "rounds=1"))
        match = all_matches(game)[0]
        recorder.record(match, made_up_round(match, 1, made_up_materials(0)))
    everyone = ", ".join(f"d{defender}: {{kind: found}}" for defender in range(24))
    game = Scenario.load("smoke", (f"defenders={{{everyone}}}", "rounds=1", "evaluation.resamples=100"))
    pid = os.fork()
    if not pid:
        used = len(list(Path("/proc/self/fd").iterdir()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, used + 12))
        try:
            finish_run(run, game, Manifest(run.root / "manifest.jsonl"), "complete", 1.0)
        except BaseException:  # noqa: BLE001 - a forked child must end here
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    run.close()
    assert len(json.loads((run.root / "summary.json").read_text())["pairs"]) == 24
