"""The lines of a plan (`plan_report.py`), for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tsdf_ray.game.estimate import span
from tsdf_ray.game.layout import ROLES
from tsdf_ray.game.packing import amounts


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
        store, checked = report["object_store"], report["object_store"]["measured_over_counted"]
        how = "counted from shapes" + ("" if checked is None else f", x {checked:g} as the probe passed on")
        yield f"object store: at its peak {size(store['driver'])} where the driver is, {size(store['node'])} on a node"
        yield f"  {how}; the generator alone {size(store['weights'])}"
    for reason in report["unknown"]:
        yield f"unknown: {reason}"
    if report["probe"]:
        yield from _probe(report["probe"])


def _bundles(bundles: list[dict[str, Any]]) -> Iterator[str]:
    """Neighbours that look alike are told together: `bundles 0-2: defender 0-2 (...), attacker 0-2 (...)`."""
    runs: list[tuple[object, list[int]]] = []
    for number, bundle in enumerate(bundles):
        looks = [{key: value for key, value in worker.items() if key != "rank"} for worker in bundle["workers"]]
        if runs and runs[-1][0] == looks:
            runs[-1][1].append(number)
        else:
            runs.append((looks, [number]))
    for _, numbers in runs:
        name = f"bundle {numbers[0]}" if len(numbers) == 1 else f"bundles {numbers[0]}-{numbers[-1]}"
        yield f"  {name}:"
        workers = [worker for number in numbers for worker in bundles[number]["workers"]]
        yield from (f"    {text}" for text in _seats(sorted(workers, key=lambda worker: ROLES.index(worker["role"]))))


def _seats(workers: list[dict[str, Any]]) -> Iterator[str]:
    """A group's workers that are alike are named together: `attacker 0-3 (0.5 CPU, 1 GPU each)`."""
    runs: list[tuple[str, str, list[int]]] = []
    for worker in workers:
        what = amounts({"CPU": worker["cpus"]} | ({"GPU": worker["gpus"]} if worker["gpus"] else {}))
        if worker["memory"] is not None:
            what += f", {100 * worker['memory']:.3g} % of its GPU's memory"
            what += ", takes turns" if worker["takes_turns"] else ""
        if runs and runs[-1][:2] == (worker["role"], what):
            runs[-1][2].append(worker["rank"])
        else:
            runs.append((worker["role"], what, [worker["rank"]]))
    for role, what, ranks in runs:
        name = f"{role} {ranks[0]}" if len(ranks) == 1 else f"{role} {ranks[0]}-{ranks[-1]}"
        yield f"{name}: {what}{' each' if len(ranks) > 1 else ''}"


def size(count: float) -> str:
    """`3.2 GB`; decimal, as disks are sold."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e3:.3g} kB"


def _time(time: dict[str, Any], piece: str, plural: str) -> Iterator[str]:
    steps = ", ".join(f"{step} {span(seconds)}" for step, seconds in time["steps_seconds"].items() if seconds >= 5)
    yield f"time: ~{span(time['race_seconds'])} for {time['pieces']} {piece if time['pieces'] == 1 else plural}"
    yield f"  the longest ~{span(time['longest_seconds'])}" + (f" ({steps})" if steps else "")
    hours = f"{_hours(time['gpu_hours'])} GPU-hours, " if time["gpu_hours"] else ""
    yield f"  {hours}{_hours(time['cpu_hours'])} CPU-hours reserved"
    yield f"  rates {time['rates']}"


def _hours(count: float) -> str:
    return f"{count:.3g}" if count >= 0.01 else "under 0.01"


def _probe(probe: dict[str, Any]) -> Iterator[str]:
    yield f"probe: one batch of {probe['match']} in {probe['seconds']:g} s on {probe['machine']}"
    for step, found in probe["passes"].items():
        yield (
            f"  {step}: {found['photos']} passes in {found['seconds']:.2g} s, "
            f"{1000 * found['seconds'] / found['photos']:.3g} ms each, {found['gflops']:.3g} GFLOP/s"
        )
    gpu = f", {size(probe['gpu_bytes'])} on the GPU" if probe["gpu_bytes"] else ""
    yield f"  memory: at most {size(probe['peak_bytes'])} in one process with all roles{gpu}"
