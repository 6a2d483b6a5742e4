"""A role's work by one worker and by two: real processes, gloo between them, one thread each, the same micro-batches.

    python -m bench groups [--repeats 7] [--steps 4] [--precision bfloat16] [--works NAME ...]

Three processes stay up: one that works alone, and a group of two. They take turns, a row at a time, so that what else
the machine does meets both; a ratio is taken turn by turn. `undivided` is one worker without micro-batches. Seconds are
those of the wall clock; `CPU` is what the busiest worker computed, which a busy machine lengthens less: two free cores
would give that ratio, but for the time in which workers wait for each other. Every turn ends with a digest: the bits
must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

import torch

from tsdf_ray.crew import SOLO, Crew, Seat
from tsdf_ray.defenders import Knowledge, make_defender
from tsdf_ray.digest import array_digest
from tsdf_ray.faces import Counts, FacesConfig, FaceSet, load_splits
from tsdf_ray.generators import TrainConfig, Trainer, load_family

BATCH = 16
WORKS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "attacker editor-128": ("train", ("editor-128",), 4),
    "attacker stargan-128": ("train", ("stargan-128",), 4),
    "attacker stargan-128, by 8": ("train", ("stargan-128",), 8),
    "defender editor-128": ("learn", ("editor-128",), 8),
    "defender editor-128 + stargan-128": ("learn", ("editor-128", "stargan-128"), 8),
}
"""What, against or of which generators, and photos of a micro-batch, of batches of 16."""
Job = Callable[[Crew, "int | None"], Callable[[], str]]
"""(crew, micro-batch) -> what is timed; it returns the result's digest."""


def photos(count: int, attributes: tuple[str, ...]) -> FaceSet:
    """Of the packaged sample."""
    return load_splits(FacesConfig(counts=Counts(defender=count, attacker=1, evaluation=1)), 0, attributes).defender


def training(generator: str, steps: int, precision: str) -> Job:
    """Steps of the attacker's training, from the packaged weights."""
    faces = photos(64, load_family(generator).attributes)
    config = TrainConfig.model_validate({"steps": steps, "batch": BATCH, "precision": precision})

    def prepare(crew: Crew, micro_batch: int | None) -> Callable[[], str]:
        family = load_family(generator)
        trainer = Trainer(family, faces, config, 0, ("bench",), crew=crew, micro_batch=micro_batch)

        def run() -> str:
            for step in range(steps):
                trainer.step(step)
            return array_digest(family.tensors())

        return run

    return prepare


def learning(generators: Sequence[str], steps: int, precision: str) -> Job:
    """`found` learns a universal perturbation, in so many batches."""
    families = [load_family(name).freeze() for name in generators]
    labels = tuple(dict.fromkeys(name for family in families for name in family.attributes))
    faces = photos(BATCH * steps, labels)

    def prepare(crew: Crew, micro_batch: int | None) -> Callable[[], str]:
        known = {family.name: family for family in families}
        knowledge = Knowledge(0, 1, known, {}, faces, precision, Seat(crew), micro_batch)
        defender = make_defender("found", {"batch": BATCH})
        return lambda: array_digest(dict(defender.learn(knowledge).tensors))

    return prepare


def serve(rank: int, size: int) -> None:
    """A worker: a JSON line in, the turn it asks for, a JSON line out."""
    torch.set_num_threads(1)
    crew: Crew = SOLO
    if size > 1:
        from actors.group import GroupCrew, open_store

        store = open_store("127.0.0.1", size) if rank == 0 else None
        if store is not None:
            print(store.port, flush=True)
        port = store.port if store is not None else int(sys.stdin.readline())
        crew = GroupCrew.join(rank, size, "127.0.0.1", port, store=store)
    jobs: dict[str, Job] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        kind, generators, _ = WORKS[asked["work"]]
        if asked["work"] not in jobs:
            steps, precision = asked["steps"], asked["precision"]
            made = training(generators[0], steps, precision) if kind == "train" else None
            jobs[asked["work"]] = made or learning(generators, steps, precision)
        run = jobs[asked["work"]](crew, asked["micro_batch"])
        crew.gather(None)  # both begin together
        began, computed = time.perf_counter(), time.process_time()
        digest = run()
        answer = {"digest": digest, "seconds": time.perf_counter() - began, "cpu": time.process_time() - computed}
        print(json.dumps(answer), flush=True)


class Workers:
    """Processes that work together."""

    def __init__(self, size: int) -> None:
        self._processes = [self._start(rank, size) for rank in range(size)]
        if size > 1:
            port = self._out(0).readline()
            for process in self._processes[1:]:
                self._say(process, port.strip())

    @staticmethod
    def _start(rank: int, size: int) -> subprocess.Popen[str]:
        code = f"from bench.groups import serve; serve({rank}, {size})"
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True, env=env)

    def _out(self, rank: int) -> IO[str]:
        out = self._processes[rank].stdout
        assert out is not None
        return out

    @staticmethod
    def _say(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()

    def turn(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One piece of work: the slowest worker's seconds, the busiest one's CPU seconds, all digests."""
        for process in self._processes:
            self._say(process, json.dumps(asked))
        answers = [json.loads(self._out(rank).readline()) for rank in range(len(self._processes))]
        most = {key: max(answer[key] for answer in answers) for key in ("seconds", "cpu")}
        return most | {"digests": {answer["digest"] for answer in answers}}

    def close(self) -> None:
        """They end when there is nothing more to read."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait()


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} .. {max(values):.{digits}f})"


def row(work: str, workers: dict[str, Workers], options: argparse.Namespace) -> str:
    """A line of the table: turns of all variants, one after the other, several times."""
    micro_batch = WORKS[work][2]
    asked = {"work": work, "steps": options.steps, "precision": options.precision}
    variants = {"undivided": ("one", None), "one": ("one", micro_batch), "two": ("two", micro_batch)}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    for turn in range(options.repeats + 1):
        for name, (who, size) in variants.items():
            made = workers[who].turn(asked | {"micro_batch": size})
            if turn:  # the first warms up
                found[name].append(made)
    digests = {name: set().union(*(made["digests"] for made in turns)) for name, turns in found.items()}
    cells = [spread([made["seconds"] for made in turns]) for turns in found.values()]
    for key in ("seconds", "cpu"):
        pairs = zip(found["one"], found["two"], strict=True)
        cells.append(spread([one[key] / two[key] for one, two in pairs]))
    same = "equal" if digests["one"] == digests["two"] and len(digests["one"]) == 1 else "DIFFERENT"
    return "| " + " | ".join([work, str(micro_batch), *cells, same]) + " |"


def main(argv: Sequence[str] = ()) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench groups")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="training steps, or batches to learn on, of a turn")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--works", nargs="+", choices=tuple(WORKS), default=list(WORKS))
    options = parser.parse_args(argv)
    workers = {"one": Workers(1), "two": Workers(2)}
    print(
        f"{options.steps} steps of {BATCH} photos, 128 px, {options.precision}; {options.repeats} turns: "
        "median (min .. max); seconds, and how many times faster two are"
    )
    print("| work | micro-batch | undivided s | one s | two s | faster | faster, CPU | bits |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    for work in options.works:
        print(row(work, workers, options), flush=True)
    for group in workers.values():
        group.close()
