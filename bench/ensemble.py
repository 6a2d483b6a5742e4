"""Speed and memory of the two stages on the paper's ensemble: official sizes, random weights, 256 px.

Each variant runs in a process of its own (peak memory) and measures the machine's matmul rate beside it. `product` is
the code that `found` and `tsdf` run, `plain` the same steps in float32 with clean outputs and weight gradients computed
again and again. Shares are needed FLOPs per second over the bfloat16 rate.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.workload import StageOne, StageTwo, Workload, flops, needed, plain_batch, plain_step

Row = dict[str, Any]
SIDE = {"cpu": 4096, "cuda": 8192}


def wait(device: str) -> None:
    """Until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(run: Callable[[], object], device: str) -> float:
    """Seconds of one call."""
    wait(device)
    began = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - began


def rate(device: str, dtype: torch.dtype) -> float:
    """GFLOP/s of a large matrix product, the best of a few."""
    side = SIDE[device]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * side**3 / min(timed(lambda: torch.mm(a, b), device) for _ in range(4)) / 1e9


def peak_bytes(device: str) -> int:
    """High-water mark of this process' memory, or of the tensors on the card."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(variant: str, precision: str, stage: str, batch: int, options: argparse.Namespace) -> Row:
    """One row: seconds (median and range), FLOPs executed and needed per photo, share of the rate, peak memory."""
    device = options.device
    load = Workload.make(batch, device, small=options.small)
    before = rate(device, torch.bfloat16)
    must = needed(load)[stage]
    work: StageOne | StageTwo = StageOne(load, precision) if stage == "stage1" else StageTwo(load, precision)
    if isinstance(work, StageOne):
        clean = flops(work.visit)
        run = work.batch if variant == "product" else lambda: plain_batch(load, work)
    else:
        clean = 0.0
        run = work.step if variant == "product" else lambda: plain_step(load, work)
    if variant == "plain":
        load.trainable(on=True)
    executed = flops(run) / batch  # the first run also warms up
    seconds = [timed(run, device) for _ in range(options.repeats)]
    best_rate = max(before, rate(device, torch.bfloat16))
    median = statistics.median(seconds)
    return {
        "variant": variant,
        "precision": precision,
        "stage": stage,
        "batch": batch,
        "seconds": median,
        "range": [min(seconds), max(seconds)],
        "executed": executed,
        "needed": must,
        "clean": clean / batch,
        "rate_bf16": best_rate,
        "share": must * batch / median / best_rate,
        "peak_gb": peak_bytes(device) / 1e9,
        "load": os.getloadavg()[0],
    }


def agreement(options: argparse.Namespace) -> Row:
    """Share of the gradients' entries that have the same sign in float32 and bfloat16, and their cosine."""
    load = Workload.make(2, options.device, small=options.small)
    row: Row = {}
    for stage in (StageOne, StageTwo):
        full, half = (stage(load, precision).gradient().flatten() for precision in ("float32", "bfloat16"))
        row[stage.__name__] = [
            float((full.sign() == half.sign()).float().mean()),
            float(torch.nn.functional.cosine_similarity(full, half, dim=0)),
        ]
    return row


def variants(options: argparse.Namespace) -> list[tuple[str, str, str, int]]:
    """What is measured: the plain loop at batch 2, where it fits, and the product at both batches."""
    found = []
    for stage in ("stage1", "stage2"):
        found += [("plain", "float32", stage, 2)]
        found += [("product", precision, stage, 2) for precision in ("float32", "bfloat16")]
        if options.batch != 2:
            found += [("product", precision, stage, options.batch) for precision in ("float32", "bfloat16")]
    return found


def child(task: Sequence[Any], argv: Sequence[str]) -> Row:
    """Run one task in a process of its own."""
    command = [sys.executable, "-m", "bench.ensemble", *argv, "--task", json.dumps(task)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def line(row: Row) -> str:
    """A row of the table."""
    low, high = row["range"]
    return (
        f"{row['stage']}  {row['variant']:7} {row['precision']:8} {row['batch']:2}  {row['seconds']:8.3f}"
        f" ({low:.3f} .. {high:.3f})  {row['executed']:7.1f} / {row['needed']:6.1f}  "
        f"{row['share']:6.1%} of {row['rate_bf16']:.0f}  {row['peak_gb']:5.2f} GB  load {row['load']:.1f}"
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="bench ensemble", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=sorted(SIDE), default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="narrow networks at 64 px: a test of the bench itself")
    parser.add_argument("--no-mask", action="store_true", help="leave SR_mask of both precisions out")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] = ()) -> None:
    """Print the table."""
    options = parse(argv)
    if options.task:
        kind, *rest = options.task
        print(json.dumps(agreement(options) if kind == "agreement" else measure(kind, *rest, options)))
        return
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{where}, torch {torch.__version__}")
    print("stage   variant precision B   seconds (range)   GFLOP per photo executed / needed   share of GFLOP/s   peak")
    rows = []
    for task in variants(options):
        rows.append(child(task, argv))
        print(line(rows[-1]), flush=True)
    for stage in ("stage1", "stage2"):
        plain, full, half = (row for row in rows if row["stage"] == stage and row["batch"] == 2)
        print(
            f"{stage}: product is {plain['seconds'] / half['seconds']:.1f} times as fast as the plain loop in bfloat16,"
            f" {plain['seconds'] / full['seconds']:.1f} times in float32 (batch 2)"
        )
    print(f"stage1: a batch not seen before costs {rows[1]['clean']:.1f} GFLOP per photo more (clean passes)")
    signs = child(["agreement"], argv)
    for name, (same, cosine) in signs.items():
        print(f"{name}: bfloat16 gradient has float32's sign in {same:.2%} of entries, cosine {cosine:.4f}")
    masks: Row = {}
    if not (options.small or options.no_mask):
        from bench.precision import sr_mask

        masks = sr_mask()
        for precision, (value, low, high) in masks.items():
            print(f"found on the packaged editor, {precision}: SR_mask {value:.3f} [{low:.3f}, {high:.3f}]")
    if options.out:
        options.out.write_text(json.dumps({"rows": rows, "agreement": signs, "sr_mask": masks}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
