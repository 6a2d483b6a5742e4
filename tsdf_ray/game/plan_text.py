"""The lines of a plan (`plan_report.py`), for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tsdf_ray.game.estimate import span
from tsdf_ray.game.plan_report import seat_text, size


def plan_lines(report: dict[str, Any]) -> Iterator[str]:
    """One fact per line."""
    piece, parallel = report["piece"], report["parallel"]
    plural = {"match": "matches", "trial": "trials"}[piece]
    yield f"{report['scenario']}: a {piece} reserves {report['demand']}"
    yield from _bundles(report["bundles"])
    yield f"side by side: {parallel} {piece if parallel == 1 else plural}"
    for node in report["nodes"]:
        taken = f"{node['cpus_taken']:g} of {node['count'] * node['cpus']:g} CPUs"
        if node["gpus"]:
            taken += f", {node['gpus_taken']:g} of {node['count'] * node['gpus']:g} GPUs"
        yield f"  on {node['count']} x ({node['cpus']:g} CPUs, {node['gpus']:g} GPUs): {taken}"
    for note in report["notes"]:
        yield f"note: {note}"
    for need in report["missing"]:
        yield f"not at hand: {need}"
    if report["time"]:
        yield from _time(report["time"], piece, plural)
    if report["disk"]:
        parts = ", ".join(f"{name} {size(count)}" for name, count in report["disk"].items())
        yield f"disk: {size(sum(report['disk'].values()))} ({parts})"
    if report["object_store"]:
        store = report["object_store"]
        checked = store["measured_over_counted"]
        how = "counted from shapes" if checked is None else f"counted from shapes, x {checked:g} as the probe passed on"
        yield f"object store: {size(store['peak'])} at its peak, over all nodes ({how}); weights {size(store['weights'])}"
    for reason in report["unknown"]:
        yield f"unknown: {reason}"
    if report["probe"]:
        yield from _probe(report["probe"])


def _bundles(bundles: list[dict[str, Any]]) -> Iterator[str]:
    """Bundles that look alike are told once."""
    texts = ["; ".join(seat_text(bundle["workers"])) for bundle in bundles]
    shown = 4
    for number, text in enumerate(texts[:shown]):
        yield f"  bundle {number}: {text}"
    if len(texts) > shown:
        yield f"  ... and {len(texts) - shown} more bundles, to {len(texts) - 1}: {texts[-1]}"


def _time(time: dict[str, Any], piece: str, plural: str) -> Iterator[str]:
    steps = ", ".join(f"{step} {span(seconds)}" for step, seconds in time["steps_seconds"].items() if seconds >= 5)
    yield f"time: ~{span(time['race_seconds'])} for {time['pieces']} {piece if time['pieces'] == 1 else plural}"
    yield f"  the longest ~{span(time['longest_seconds'])}" + (f" ({steps})" if steps else "")
    hours = f"{time['gpu_hours']:.3g} GPU-hours, " if time["gpu_hours"] else ""
    yield f"  {hours}{time['cpu_hours']:.3g} CPU-hours reserved"
    yield f"  rates {time['rates']}"


def _probe(probe: dict[str, Any]) -> Iterator[str]:
    yield f"probe: one batch of {probe['match']} in {probe['seconds']:g} s on {probe['machine']}"
    for step, found in probe["passes"].items():
        yield (
            f"  {step}: {found['photos']} passes in {found['seconds']:.2g} s, "
            f"{1000 * found['seconds'] / found['photos']:.3g} ms each, {found['gflops']:.3g} GFLOP/s"
        )
    gpu = f", {size(probe['gpu_bytes'])} on the GPU" if probe["gpu_bytes"] else ""
    yield f"  memory: at most {size(probe['peak_bytes'])} in one process with all roles{gpu}"
