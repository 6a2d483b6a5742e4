"""`tsdf-ray plan`: what it prints, refuses, and says for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from tsdf_ray.cli import app

GROUPS = (
    "--set resources.gpus_per_match=8 --set resources.cpus_per_match=16 --set micro_batch=1 "
    "--set resources.workers={defender:8,attacker:8}"
)


def run(line: str) -> Any:
    words = [word.replace(":8", ": 8") if word.startswith("resources.workers") else word for word in line.split()]
    return CliRunner().invoke(app, ["plan", *words])


def test_groups_on_two_nodes() -> None:
    result = run(f"quickstart --no-probe --cluster 1x16cpu+2x8gpu {GROUPS}")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "quickstart: a match reserves 8 x (2 CPUs, 1 GPU) on one node"
    assert lines[1:3] == [
        "  bundles 0-6:",
        "    defender 0-6: 1 CPU, 0.5 GPU, 90 % of its GPU's memory, takes turns each",
    ]
    assert "    evaluator 0: 0.6666 CPU, 0.3333 GPU, 22.5 % of its GPU's memory, takes turns" in lines
    assert "side by side: 2 matches" in lines
    assert "  on 1 x (16 CPUs, 0 GPUs): 0 of 16 CPUs" in lines
    assert "  on 2 x (64 CPUs, 8 GPUs): 32 of 128 CPUs, 16 of 16 GPUs" in lines
    assert any(line.startswith("  rates stated: 30000 GFLOP/s") for line in lines)
    assert any(line.startswith("disk: ") for line in lines)


def test_what_is_asked_for_in_vain_is_said() -> None:
    result = run("quickstart --no-probe --cluster 2x8gpu --set resources.gpus_per_match=9")
    assert result.exit_code == 0, result.output
    assert "note: resources.gpus_per_match: of 9 the workers use 3, and no more is reserved" in result.output
    slow = run("quickstart --no-probe --cluster 1x4cpu --set micro_batch=1 --set resources.workers={defender:8}")
    assert (
        "note: resources.cpus_per_match: 8 workers of 1 thread(s) at once share 1 CPU(s); raise it to 8" in slow.output
    )


def test_gpus_that_nobody_asks_for_are_named() -> None:
    result = run("quickstart --no-probe --cluster 2x8gpu")
    assert "note: resources.gpus_per_match: is 0, so no GPU is used" in result.output
    assert "no GPU is used" not in run("quickstart --no-probe --cluster 16cpu").output


def test_for_programs() -> None:
    result = run("quickstart --no-probe --cluster 2x8gpu --set resources.gpus_per_match=0.25 --json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["parallel"] == 4
    assert report["bundles"][0]["reserved"] == {"CPU": 1.0, "GPU": 0.25}
    assert [worker["role"] for worker in report["bundles"][0]["workers"]] == ["defender", "attacker", "evaluator"]
    assert report["nodes"] == [{"count": 2, "cpus": 64.0, "gpus": 8.0, "cpus_taken": 4.0, "gpus_taken": 1.0}]
    assert report["time"]["gpu_hours"] > 0
    assert report["probe"] is None


@pytest.mark.slow
def test_a_probe_of_one_batch() -> None:
    result = run("smoke --json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["probe"]["match"] == "tsdf against mtcnn"
    assert report["time"]["rates"].startswith("measured on this machine, CPU")
    assert report["object_store"]["measured_over_counted"] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("quickstart --cluster 2x8gpu --set resources.gpus_per_match=64", "resources.gpus_per_match: 64 asked for, 16"),
        ("quickstart --cluster 4cpu+2x8gpu:1cpu --set resources.cpus_per_match=5", "resources.cpus_per_match: a match"),
        ("quickstart --cluster 1x8gpu --set resources.placement=spread", "resources.placement: a match needs 2 x"),
        ("quickstart --cluster 2x8gpu --address HEAD:6379", "--cluster and --address: a plan is for one of them"),
        ("quickstart --set resources.cpus_per_match=0.00001", "resources.cpus_per_match: 1e-05 leaves nothing"),
        ("quickstart --cluster 2x8tpu", "--cluster: '2x8tpu': '8tpu' is no amount"),
        (
            "quickstart --cluster 2x2gpu --set resources.workers={defender:8,attacker:8} --set micro_batch=1 "
            "--set resources.gpus_per_match=2",
            "resources.workers.defender: 8 workers need a whole GPU each",
        ),
    ],
)
def test_what_cannot_be_is_refused(line: str, words: str) -> None:
    result = run(line + " --no-probe")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {words}")
    assert result.stdout == ""


def test_weights_that_are_not_here_are_named_and_the_plan_is_made() -> None:
    result = run("quickstart --cluster 1x1gpu --set generator=weights/stargan/200000-G.ckpt")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "not at hand: generator: no such file or folder: weights/stargan/200000-G.ckpt" in lines
    assert any(line.startswith("unknown: disk and object store: ") for line in lines)
    assert not any(line.startswith("probe") for line in lines)
    assert any(line.startswith("time: ~") for line in lines), "the official family's cost is known by its name"
