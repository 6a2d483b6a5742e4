"""The sizing table of docs/sizing.md: plans on paper, from counted passes and stated rates.

    python -m bench sizing [--gflops 30000]

`--gflops` is what one GPU makes of these networks, in GFLOP/s: `tsdf-ray plan` measures it on a machine that has one.
Weights need not be at hand: bytes are those of networks of the official sizes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch

from tsdf_ray.game.clusters import parse_cluster
from tsdf_ray.game.estimate import GPU_RATE, span
from tsdf_ray.game.plan import plan
from tsdf_ray.game.plan_text import size
from tsdf_ray.game.sizes import Weights, disk, object_peak, weights_of
from tsdf_ray.game.walltime import stated_rates, time_of
from tsdf_ray.generators.weights import GENERATORS
from tsdf_ray.scenario import Scenario

TENFOLD = "faces.counts={defender: 1280, attacker: 30000, evaluation: 5000}"
COLLECT = ("attackers.retinaface.collect.photos=10000", "attackers.mtcnn.collect.photos=10000")
ONE, FOUR, EIGHT = ("resources.gpus_per_match=1",), ("resources.gpus_per_match=4",), ("resources.gpus_per_match=8",)
IN_FOURS = (*FOUR, "micro_batch=2", "resources.workers={defender: 4, attacker: 4, evaluator: 4}")
IN_EIGHTS = (*EIGHT, "micro_batch=1", "resources.workers={defender: 8, attacker: 8, evaluator: 8}")
SEEDS = f"seeds={list(range(24))}"
ROWS: list[tuple[str, str, tuple[str, ...]]] = [
    ("quickstart", "2cpu", ()),
    ("paper/interruption", "1gpu", ONE),
    ("paper/interruption", "8gpu", ONE),
    ("paper/persistence", "8gpu", ONE),
    ("paper/persistence", "2x8gpu", ONE),
    ("paper/persistence", "2x8gpu", IN_FOURS),
    ("paper/persistence", "8x8gpu", (*ONE, TENFOLD, *COLLECT)),
    ("paper/persistence", "8x8gpu", (*IN_EIGHTS, TENFOLD, *COLLECT)),
    ("paper/persistence", "125x8gpu", (*ONE, TENFOLD, *COLLECT, SEEDS)),
    ("paper/persistence", "125x8gpu", (*IN_FOURS, TENFOLD, *COLLECT, SEEDS)),
]
"""Scenario, cluster, changes."""


def weights(scenario: Scenario) -> Weights:
    """Of the packaged file, or of an untrained StarGAN of the official size."""
    if not scenario.generator.startswith("weights/stargan"):
        return weights_of(scenario)
    kind = GENERATORS["stargan"]
    with torch.device("meta"):  # shapes are enough
        family = kind(kind.config_class.model_validate({"image_size": scenario.faces.size}))
    parts = {
        f"{part}.{name}": value.numel() * value.element_size()
        for part, module in family.parts.items()
        for name, value in module.state_dict().items()
    }
    return Weights(sum(parts.values()), sum(n for name, n in parts.items() if name.startswith("generator.")))


def row(name: str, cluster: str, changes: tuple[str, ...], gflops: float) -> list[str]:
    """One line of the table."""
    game, supply = Scenario.load(name, changes), parse_cluster(cluster)
    made = plan(game, supply)
    rates = stated_rates(game, made)
    if game.resources.gpus_per_match:
        rates = replace(rates, stated=rates.stated * gflops / GPU_RATE)
    time = time_of(game, made, made.parallel_matches, rates)
    counts, want, bytes_of = game.faces.counts, game.resources.workers, weights(game)
    known = 1 + max(len(entry.generators) for entry in game.defenders.values())
    per_node = -(-made.parallel_matches // len(supply.machines))
    return [
        f"`{name}`",
        cluster,
        f"{counts.defender:,} / {counts.attacker:,} / {counts.evaluation:,}",
        str(known),
        f"{time.pieces} x {game.rounds}",
        f"{want.defender}",
        str(made.parallel_matches),
        span(time.race),
        f"{time.gpu_hours:,.0f}" if time.gpu_hours >= 1 else f"{time.gpu_hours:.2g}" if time.gpu_hours else "-",
        size(sum(disk(game, bytes_of).values())),
        f"{size(object_peak(game, bytes_of, made.parallel_matches))} / {size(object_peak(game, bytes_of, per_node))}",
    ]


TITLES = (
    "scenario",
    "cluster",
    "photos",
    "generators",
    "matches x rounds",
    "workers",
    "side by side",
    "time",
    "GPU-hours",
    "disk",
    "object store, driver / node",
)


def main(argv: Sequence[str] = ()) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench sizing")
    parser.add_argument("--gflops", type=float, default=GPU_RATE, help="GFLOP/s of one GPU")
    gflops = parser.parse_args(argv).gflops
    print(f"| {' | '.join(TITLES)} |\n|{'---|' * 2}{'---:|' * (len(TITLES) - 2)}")
    for name, cluster, changes in ROWS:
        print(f"| {' | '.join(row(name, cluster, changes, gflops))} |", flush=True)
