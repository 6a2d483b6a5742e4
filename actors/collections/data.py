"""Jobs over photo collections that do not fit into memory: Ray Data reads parts, a pool of actors works, tasks write.

Memory is bounded by the parts in flight, which Ray Data's back-pressure limits, whatever the size of the collection.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from actors.cluster import connect
from actors.collections.collection import Collection
from actors.collections.messages import MESSAGE, Actor, Read, Work, write
from actors.collections.readings import Reading
from tsdf_ray.errors import MatchFailed, UserError

PART = 256
"""Photos of a part, at most: what a restart may have to compute again."""
WORKER_CPUS, STREAM_CPUS = 0.8, 0.2
"""Of an actor, and of a task that reads or writes: as many of each as there are CPUs fit."""
BLOCK_BYTES = 1 << 20
POLL_SECONDS = 0.5
Tell = Callable[[str, int, int], None]
"""Called with (what is being done, photos done, of how many), twice a second; may raise Stopped."""


@dataclass(frozen=True)
class Job:
    """What is done: `worker(*arguments)` is made in every actor, and called with every part."""

    name: str
    worker: Callable[..., Work]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Progress:
    """What a call did."""

    parts: int
    photos: int
    computed: int
    """Parts computed by this call; the others were there."""


def run(
    job: Job,
    readings: Sequence[Reading],
    out: Collection,
    *,
    address: str | None = None,
    workers: int | None = None,
    tell: Tell | None = None,
) -> Progress:
    """Compute and write the parts that are not there yet.

    `workers` actors, by default one per CPU of the cluster. Raises UserError and MatchFailed of a worker, with finished
    parts kept, and what `tell` raises.
    """
    tell = tell or (lambda what, done, total: None)
    counts = {r.first + k: count for r in readings for k, count in enumerate(r.counts)}
    missing = frozenset(counts) - out.finished()
    total, done = sum(counts.values()), sum(n for part, n in counts.items() if part not in missing)
    tell(job.name, done, total)
    if missing:
        connection = connect(address)
        try:
            for part in _computed(job, readings, missing, out, workers):
                done += 0 if part is None else counts[part]
                tell(job.name, done, total)
        finally:
            connection.close()
    return Progress(len(counts), total, len(missing))


def _computed(
    job: Job, readings: Sequence[Reading], missing: frozenset[int], out: Collection, workers: int | None
) -> Iterator[int | None]:
    """Numbers of parts as they are finished; None every half second while waiting."""
    cpus = int(ray.cluster_resources().get("CPU", 0))
    if workers is not None and not 1 <= workers <= cpus:
        raise UserError(
            f"--workers {workers}: the cluster has {cpus} CPUs, one for each; give a number from 1 to {cpus}"
        )
    # Once per node: numpy arrays leave the store without a copy.
    arguments = ray.put(job.arguments)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # One task may read many parts: fewer tasks than actors say nothing.
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
    parts = _Parts(job.name, readings, missing)
    # As many blocks as tasks: with more, Ray Data would split what a task yields.
    messages = ray.data.read_datasource(parts, num_cpus=STREAM_CPUS, override_num_blocks=len(parts.work))
    messages.context.enable_progress_bars = False
    messages.context.target_max_block_size = BLOCK_BYTES
    written = messages.map_batches(
        Actor,
        fn_constructor_args=(job.worker, arguments),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers or max(1, cpus), max_tasks_in_flight_per_actor=2),
        num_cpus=WORKER_CPUS,
    ).map_batches(write, fn_args=(out,), batch_size=1, batch_format="pyarrow", num_cpus=STREAM_CPUS)
    for batch in _polled(lambda: written.iter_batches(batch_size=None, batch_format="pyarrow")):
        if batch is None:
            yield None
            continue
        for row in batch.to_pylist():
            if row["failed"]:
                raise {"UserError": UserError, "MatchFailed": MatchFailed}[row["failed"]](row["error"])
            yield row["part"]


class _Parts(Datasource):  # type: ignore[misc]
    """The parts that are missing; a task for every reading that has one."""

    def __init__(self, name: str, readings: Sequence[Reading], missing: frozenset[int]) -> None:
        super().__init__()
        self._name = name
        self.work = []
        for reading in readings:
            wanted = missing.intersection(range(reading.first, reading.first + len(reading.counts)))
            if wanted:
                self.work.append((reading, wanted))

    def get_name(self) -> str:
        """For Ray's pages."""
        return f"parts to {self._name}"

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of the photos as they are stored."""
        return sum(reading.bytes for reading, _ in self.work)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One task for each reading: a part of a folder, or some row groups."""
        tasks = []
        for reading, wanted in self.work:
            known = BlockMetadata(num_rows=len(wanted), size_bytes=reading.bytes, input_files=None, exec_stats=None)
            tasks.append(ReadTask(Read(reading, wanted), known, schema=MESSAGE, per_task_row_limit=per_task_row_limit))
        return tasks


def _polled(make: Callable[[], Iterator[pa.Table]]) -> Iterator[pa.Table | None]:
    """What an iterator yields, read in a thread of its own; None every half second while there is nothing."""
    items: queue.Queue[pa.Table | BaseException | None] = queue.Queue(4)
    left = threading.Event()

    def give(item: pa.Table | BaseException | None) -> bool:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                items.put(item, timeout=POLL_SECONDS)
                return True
        return False

    def pump() -> None:
        try:
            for item in make():
                if not give(item):
                    return
            give(None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are read
            give(error)

    thread = threading.Thread(target=pump, name="parts", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = items.get(timeout=POLL_SECONDS)
            except queue.Empty:
                yield None
                continue
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return
            yield item
    finally:
        left.set()
        if thread.is_alive():  # its connection ends now: what Ray Data says of that is no news
            logging.getLogger("ray.data").setLevel(logging.CRITICAL)


__all__ = ["PART", "Job", "Progress", "Tell", "run"]
