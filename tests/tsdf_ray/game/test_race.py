"""The smoke race in-process and under Ray: it measures something, its steps run where they should, both agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tsdf_ray
from tsdf_ray.generators import Family, TrainConfig, train
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.run import Run


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tsdf_ray.play("smoke", tmp_path_factory.mktemp("race") / "inprocess", executor="inprocess", report=False)


@pytest.fixture(scope="module")
def under_ray(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Run:
    return tsdf_ray.play("smoke", tmp_path_factory.mktemp("race") / "ray", executor="ray", report=False)


def events(run: Run) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if "step" in line]


def manifest(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "manifest.jsonl").read_text().splitlines()]


def test_the_race_measures_something(in_process: Run) -> None:
    assert in_process.status == "complete"
    cells = in_process.summary["pairs"]["tsdf/mtcnn"]
    measured = {
        name: [cell["value"] for cell in cells[name]]
        for name in ("protection", "edit_success_before", "edit_success_after", "sr_mask_before")
    }
    values = [value for series in measured.values() for value in series]
    assert all(value is not None for value in values), measured
    assert any(0 < value < 1 for value in values), measured
    assert 20 < cells["psnr"][0]["value"] < 45
    assert 0.5 < cells["ssim"][0]["value"] < 1


def test_every_round_left_its_files(in_process: Run) -> None:
    for entry in manifest(in_process):
        for name in entry["files"]:
            kept = entry["round"] > in_process.info["seeds"][0] or not name.startswith("checkpoints/")
            assert (in_process.path / name).exists() or not kept, name
    assert [entry["round"] for entry in manifest(in_process)] == [1, 2]


def test_phases_are_all_there(in_process: Run) -> None:
    phases = set(in_process.metrics.column("phase").to_pylist())
    assert phases == {"before", "after", "later", "decay", "reference", "preparation", "detection", "visibility"}
    shares = {
        row["step_share"]
        for row in in_process.metrics.to_pylist()
        if row["phase"] == "decay" and row["metric"] == "sr_mask"
    }
    assert shares == {0.0, 0.1, 0.25, 0.5, 1.0}


def test_noise_does_not_break_forgeries(in_process: Run) -> None:
    """The reference tells a learned perturbation from any perturbation (prototype: SR_mask of noise is 0)."""
    rows = [
        row["value"]
        for row in in_process.metrics.to_pylist()
        if row["phase"] == "reference" and row["model"] == "noise" and row["metric"] == "sr_mask" and row["seed"] == 0
    ]
    assert len(rows) == 3  # against G_0, G_1, G_2
    assert max(rows) < 0.2


def test_events_say_what_was_done_to_how_many_photos(in_process: Run) -> None:
    told = {
        (step["step"], work["what"]): work["photos"]
        for step in events(in_process)
        for work in step["work"]
        if step["round"] == 2
    }
    assert told == {("prepare", "detect mtcnn"): 16, ("retrain", "retrain finetune"): 32}


PURIFYING = {
    "collect": {"photos": 12, "own": 8, "pool": "cumulative"},
    "purify": {
        "prepare": [{"kind": "subtract", "denoised": {"kind": "denoise", "steps": 4, "batch": 2, "width": 4}}],
        "train": [{"kind": "median"}],
        "inference": [{"kind": "denoise", "steps": 4, "batch": 2, "width": 4}, {"kind": "subtract"}],
    },
    "retrain": {"mode": "adversarial", "train": {"steps": 4, "batch": 4}},
}


def purifying(folder: Path, executor: str) -> Run:
    base = Scenario.load("smoke").model_dump(mode="json")
    base["attackers"] = {"washes": PURIFYING}
    base["evaluation"]["decay"] = [0, 1]
    base["faces"]["counts"] = {"defender": 8, "attacker": 32, "evaluation": 4}
    return tsdf_ray.play(Scenario.model_validate(base), folder, executor=executor, report=False)


@pytest.mark.ray
def test_a_purifying_attacker_plays_the_same_in_both_executors(tmp_path: Path, ray_cluster: None) -> None:
    one, other = (purifying(tmp_path / executor, executor) for executor in ("inprocess", "ray"))
    assert one.status == other.status == "complete"
    assert one.images.equals(other.images)
    assert [e["digests"] for e in manifest(one)] == [e["digests"] for e in manifest(other)]
    works = [work["what"] for step in events(one) for work in step["work"]]
    assert works.count("learn denoise") == 1  # two rounds, three uses
    assert works.count("purify.inference denoise") > 2
    assert works.count("retrain adversarial") == 2


def test_playing_again_gives_the_same_tables(in_process: Run, tmp_path: Path) -> None:
    again = tsdf_ray.play("smoke", tmp_path / "again", changes=("rounds=1",), executor="inprocess", report=False)
    first = [entry["digests"] for entry in manifest(in_process) if entry["round"] == 1]
    assert [entry["digests"] for entry in manifest(again)] == first


def test_another_seed_gives_another_race(in_process: Run, tmp_path: Path) -> None:
    other = tsdf_ray.play(
        "smoke", tmp_path / "other", changes=("rounds=1", "seeds=[7]"), executor="inprocess", report=False
    )
    first = [entry["digests"] for entry in manifest(in_process) if entry["round"] == 1]
    assert [entry["digests"] for entry in manifest(other)] != first


@pytest.mark.ray
def test_both_executors_give_the_same_tables_and_digests(in_process: Run, under_ray: Run) -> None:
    assert under_ray.images.equals(in_process.images)
    assert under_ray.metrics.equals(in_process.metrics)
    assert [e["digests"] for e in manifest(under_ray)] == [e["digests"] for e in manifest(in_process)]


@pytest.mark.ray
def test_roles_have_processes_of_their_own_and_overlap(under_ray: Run) -> None:
    steps = events(under_ray)
    pids = {
        role: {step["pid"] for step in steps if step["role"] == role} for role in ("defender", "attacker", "evaluator")
    }
    assert all(len(own) == 1 for own in pids.values())
    assert len(set.union(*pids.values())) == 3
    before = next(step for step in steps if step["step"] == "before")
    attack = [step for step in steps if step["role"] == "attacker" and step["round"] == before["round"]]
    assert any(step["start"] < before["end"] and before["start"] < step["end"] for step in attack)


def test_a_match_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN while training ends that match with its reason; the other match goes on."""
    base = Scenario.load("smoke", ("rounds=1",)).model_dump(mode="json")
    wild = json.loads(json.dumps(base["attackers"]["mtcnn"]))
    wild["retrain"]["train"]["learning_rate"] = 0.123
    base["attackers"] = {"wild": wild, "mtcnn": base["attackers"]["mtcnn"]}

    def train_from_broken_weights(family: Family, faces: Any, config: TrainConfig, *args: Any, **more: Any) -> Any:
        if config.learning_rate == 0.123:
            next(family.parts["generator"].parameters()).data.fill_(float("nan"))
        return train(family, faces, config, *args, **more)

    monkeypatch.setattr("tsdf_ray.attackers.retrain.train", train_from_broken_weights)
    run = tsdf_ray.play(Scenario.model_validate(base), tmp_path / "run", executor="inprocess", report=False)
    assert run.status == "failed"
    assert list(run.info["failed"]) == ["tsdf-vs-wild-s0"]
    assert "nan at step 0" in run.info["failed"]["tsdf-vs-wild-s0"]
    assert list(run.summary["pairs"]) == ["tsdf/mtcnn"]


def test_epsilon_zero_changes_no_pixel_and_protects_nothing(tmp_path: Path) -> None:
    run = tsdf_ray.play(
        "smoke", tmp_path / "run", changes=("rounds=1", "defenders.tsdf.epsilon=0"), executor="inprocess", report=False
    )
    cells = run.summary["pairs"]["tsdf/mtcnn"]
    assert cells["sr_mask_before"][0]["value"] == 0
    assert cells["duq"]["retinaface"][0]["value"] == 1
    assert cells["persistence"][0]["value"] is None
    assert cells["persistence"][0]["reason"]


@pytest.mark.assets
def test_a_detector_plays_with_a_file_of_the_users(in_process: Run, assets: Path, tmp_path: Path) -> None:
    official = assets / "weights" / "retinaface_mobilenet0.25_Final.pth"
    changes = ("rounds=1", f"detector_weights={{retinaface: {official}}}")
    run = tsdf_ray.play(Scenario.load("smoke", changes), tmp_path / "own", executor="inprocess", report=False)

    def scores(table: Any) -> Any:
        wanted = table[(table["round"] == 1) & (table.metric == "score_change") & table.seed.notna()]
        return wanted.set_index("model")["value"]

    own, packaged = scores(run.metrics.to_pandas()), scores(in_process.metrics.to_pandas())
    # The defender's white-box detector is another network now: another poison, other scores.
    assert own["retinaface"] != packaged["retinaface"]
