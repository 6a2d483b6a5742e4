"""One batch of everything, on the machine at hand: what a match costs here, in time, memory and bytes passed on.

A small match of one round is played in this process, its roles built from the scenario's own models at its own sizes:
one batch to learn on, two training steps, a few photos to publish and to judge. Rates are the
counted operations over the seconds measured; they speak of this machine and no other.
"""

from __future__ import annotations

import os
import pickle
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tsdf_ray.crew import ALONE, Seat
from tsdf_ray.errors import UserError
from tsdf_ray.game.estimate import CORE_RATE, machine_cores, match_gflop, span
from tsdf_ray.game.evaluator import EvaluatorRole
from tsdf_ray.game.materials import load_materials
from tsdf_ray.game.passes import match_lines
from tsdf_ray.game.players import AttackerRole, DefenderRole
from tsdf_ray.game.sizes import Weights, objects, shared_objects
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.scenario import Scenario

JUDGED = 8
"""Photos that are published and judged."""
STEPS = 2
"""Training steps made."""
PATIENCE = 60.0
"""Seconds a probe may take on a CPU by the stated rate. Where whole batches take longer they are cut to `FEW` photos;
where that takes ten times as long, nothing is measured."""
FEW = 2
SLOW = 4.0
"""Seconds from which on a step is not made a second time."""
T = TypeVar("T")


@dataclass
class Probe:
    """What was measured. Seconds and photos by step; bytes by object."""

    match: str
    machine: str
    """What measured: device, cores, threads of a role."""
    device: str
    """`cpu` or `cuda`."""
    busy: bool = False
    """Others were computing on this machine, so that seconds are of CPU time."""
    seconds: float = 0.0
    """Of the whole probe, loading included."""
    steps: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    """GFLOP/s by step, where its cost is known."""
    photos: dict[str, int] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)
    """Bytes of the photos and weights, and of each step's result, as they go through the object store."""
    peak_bytes: int = 0
    """Largest memory of this process, all three roles in it."""
    gpu_bytes: int = 0
    """Largest memory on the GPU; 0 on a CPU."""
    counted: int = 0
    """What `sizes` says of the same small match, in bytes."""

    @property
    def correction(self) -> float:
        """Bytes that were passed over bytes counted: what to multiply counted sizes by."""
        return sum(self.passed.values()) / self.counted if self.counted else 1.0


def small(scenario: Scenario, defender: str, attacker: str, most: int | None = None) -> Scenario:
    """One round of one match: a batch of each step (of at most `most` photos), all else of a step as it is."""
    judged = min(most or JUDGED, JUDGED)
    content = scenario.model_dump(mode="json")
    content |= {"seeds": content["seeds"][:1], "rounds": 1, "search": None, "resources": {}}
    own, foe = content["defenders"][defender], content["attackers"][attacker]
    content["defenders"], content["attackers"] = {defender: own}, {attacker: foe}
    if "epochs" in own:
        own["epochs"] = 1
    train = foe["retrain"]["train"]
    train |= {"steps": min(train["steps"], STEPS), "batch": min(most or train["batch"], train["batch"])}
    foe["retrain"]["warm_up"] = min(foe["retrain"]["warm_up"], 1)
    # Clean photos: a starved attacker would have no step to measure.
    collected = max(2 * train["batch"], judged) if foe["retrain"]["mode"] != "none" else judged
    clean = min(foe["collect"]["own"], 4 * judged)
    foe["collect"] |= {"photos": collected, "protected": 0.0, "own": clean}
    foe["prepare"]["on_miss"] = "keep"
    _shorten(foe["purify"])
    content["faces"]["counts"] = {
        "defender": min(scenario.faces.counts.defender, most or own.get("batch", judged)),
        "attacker": collected + clean,
        "evaluation": min(scenario.faces.counts.evaluation, judged),
    }
    content["evaluation"] |= {"decay": [0.0, 1.0], "samples": 1}
    used = [*own["detectors"], *foe["prepare"]["detectors"], *content["evaluation"]["detectors"]]
    content["detector_weights"] = {name: path for name, path in content["detector_weights"].items() if name in used}
    return Scenario.model_validate({key: value for key, value in content.items() if value is not None})


def _shorten(section: Any) -> None:
    """Networks that purification trains make two steps."""
    for inner in section.values() if isinstance(section, dict) else section if isinstance(section, list) else ():
        if isinstance(inner, dict) and inner.get("kind") == "denoise":
            inner["steps"] = min(inner["steps"], STEPS)
        _shorten(inner)


def probe(scenario: Scenario, *, gpu: bool = False) -> Probe:
    """Measure the costliest pair. `gpu`: on the GPU at hand, if there is one.

    Raises UserError (weights or photos missing) and MatchFailed, as a match would.
    """
    import torch

    began = time.perf_counter()
    gpu = gpu and torch.cuda.is_available()
    game, cut = _affordable(scenario, gpu)
    spec = MatchSpec(game.as_json(), *game.pairs[0], game.seeds[0])
    seat = Seat(device="cuda") if gpu else ALONE
    busy = seat.device == "cpu" and os.getloadavg()[0] > machine_cores() + 1
    machine = _machine(seat.device, game.threads, busy) + (f"; batches cut to {FEW} photos" if cut else "")
    found = Probe(f"{spec.defender} against {spec.attacker}", machine, seat.device, busy)
    threads = torch.get_num_threads()
    torch.set_num_threads(game.threads)
    try:
        _play(spec, seat, found)
    finally:
        torch.set_num_threads(threads)
    if seat.device == "cuda":
        found.gpu_bytes = int(torch.cuda.max_memory_allocated())
    found.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    _rate(game, found)
    found.seconds = time.perf_counter() - began
    return found


def _affordable(scenario: Scenario, gpu: bool) -> tuple[Scenario, bool]:
    """The small match, and whether its batches were cut. Raises UserError when it would take far too long."""
    pair = _costliest(scenario)
    whole, few = small(scenario, *pair), small(scenario, *pair, most=FEW)
    try:
        seconds, at_least = (
            2 * match_gflop(game, *game.pairs[0]) / (CORE_RATE * min(game.threads, machine_cores()))
            for game in (whole, few)
        )
    except UserError:  # its cost is not known: it is found out
        return whole, False
    if gpu or seconds <= PATIENCE:
        return whole, False
    if at_least > 10 * PATIENCE:
        raise UserError(f"even {FEW} photos of each step take ~{span(at_least)} on this CPU; ask where a GPU is")
    return few, True


def _play(spec: MatchSpec, seat: Seat, found: Probe) -> None:
    """The small match, timed; steps that are not slow are made twice and the second counts: the first warms up."""
    materials = load_materials(spec.scenario, spec.seed)
    found.passed["photos"] = passed_bytes(materials.splits)
    found.passed["weights"] = passed_bytes(materials.generator)
    found.passed["generator"] = found.passed["weights"]  # G_{r-1}: in round 1 the same
    weights = Weights(
        sum(array.nbytes for array in materials.generator.values()),
        sum(array.nbytes for name, array in materials.generator.items() if name.startswith("generator.")),
    )
    counted = shared_objects(spec.scenario, weights) | objects(spec.scenario, weights, spec.defender, spec.attacker)
    found.counted = sum(counted.values())

    clock = _cpu_clock(spec.scenario.threads) if found.busy else time.perf_counter

    def timed(step: str, make: Callable[[], T], *, again: bool = True) -> T:
        for _ in range(2 if again else 1):
            start = clock()
            made = make()
            seconds = clock() - start
            if seconds > SLOW:
                break
        found.steps[step] = found.steps.get(step, 0.0) + seconds
        found.passed[step] = passed_bytes(made)
        return made

    start = materials.generator
    defender = DefenderRole(spec, materials, seat)
    shown = start if spec.shows_last_round else None
    learned = timed("learn", lambda: defender.learn(1, shown))
    published = timed("publish", lambda: defender.publish(1, learned, shown))
    attacker = AttackerRole(spec, materials, seat)
    studied = timed("study", lambda: attacker.study(1, published), again=False)
    prepared = timed("prepare", lambda: attacker.prepare(1, published, studied))
    retrained = timed("retrain", lambda: attacker.retrain(1, start, prepared))
    evaluator = EvaluatorRole(spec, materials, seat)
    timed("before", lambda: evaluator.before(1, start, published, studied), again=False)
    timed("after", lambda: evaluator.after(1, start, retrained, prepared, published, studied), again=False)


def _rate(game: Scenario, found: Probe) -> None:
    """GFLOP/s by step of `passes.Line`, where the counts are known and something was computed."""
    seconds = {name: value for name, value in found.steps.items() if name not in {"before", "after"}}
    seconds["evaluate"] = found.steps["before"] + found.steps["after"]
    try:
        lines = match_lines(game, *game.pairs[0])
    except UserError:
        return
    for step, spent in seconds.items():
        gflop = sum(line.gflop for line in lines if line.step == step)
        found.photos[step] = sum(line.photos for line in lines if line.step == step)
        if gflop and spent:
            found.rates[step] = gflop / spent


def _costliest(scenario: Scenario) -> tuple[str, str]:
    try:
        return max(scenario.pairs, key=lambda pair: match_gflop(scenario, *pair))
    except UserError:
        return scenario.pairs[0]


def _cpu_clock(threads: int) -> Callable[[], float]:
    """Seconds that this process would have taken alone: what others take of the cores is not counted."""
    return lambda: time.process_time() / threads


def _machine(device: str, threads: int, busy: bool) -> str:
    import torch

    cpu = f"{platform.machine()}, {machine_cores()} cores, {threads} thread{'s' if threads > 1 else ''} per role"
    cpu += ", busy with other work: CPU time was measured" if busy else ""
    return f"{torch.cuda.get_device_name(0)} ({cpu})" if device == "cuda" else f"CPU ({cpu})"


def passed_bytes(value: object) -> int:
    """Bytes of a value as the object store keeps it: pickled, arrays beside it."""
    beside: list[pickle.PickleBuffer] = []
    plain = pickle.dumps(value, protocol=5, buffer_callback=beside.append)
    return len(plain) + sum(buffer.raw().nbytes for buffer in beside)
