"""Memory and speed of `protect` over a large collection of small photos, on a local Ray of two CPUs.

Makes N photos of 128 px as Parquet (a packaged face, mirrored or not, shifted in brightness, with noise of its own),
then protects them in a process of its own, watched from outside: bytes in the object store, spilled bytes, and
resident memory of the driver, the actors, the tasks' workers and Ray's own processes.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tsdf_ray.faces import decode
from tsdf_ray.faces.sample import SAMPLE

GROUP, FILE = 1_000, 10_000
"""Photos of a row group and of a file."""


def make(folder: Path, count: int) -> int:
    """Write the photos, a row group in memory at a time; returns their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = pq.ParquetFile(SAMPLE).iter_batches(400, columns=["image"])
    faces = [decode(cell.as_py(), "sample").astype(np.int16) for cell in next(rows).column(0)]
    total = 0
    for first in range(0, count, FILE):
        with pq.ParquetWriter(folder / f"faces-{first:07d}.parquet", schema(), compression="none") as writer:
            for start in range(first, min(first + FILE, count), GROUP):
                numbers = range(start, min(start + GROUP, first + FILE, count))
                photos = [photo(faces, number) for number in numbers]
                total += sum(map(len, photos))
                writer.write_table(pa.table([[f"{n:07d}" for n in numbers], photos], schema=schema()))
    return total


def schema() -> pa.Schema:
    """Of a collection without labels."""
    return pa.schema([("id", pa.string()), ("image", pa.binary())])


def photo(faces: Sequence[np.ndarray], number: int) -> bytes:
    """One JPEG: no two are alike."""
    rng = np.random.default_rng(number)
    pixels = faces[number % len(faces)]
    pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    noisy = pixels + rng.integers(-20, 21) + rng.integers(-4, 5, pixels.shape, dtype=np.int16)
    written = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(written, format="JPEG", quality=92)
    return written.getvalue()


def work(options: argparse.Namespace) -> None:
    """In the watched process: protect, with a line for the watcher every two seconds and one at the end."""
    import ray

    from actors.cluster import connect
    from actors.collections import protect

    began, told = time.monotonic(), 0.0
    connection = connect(None)

    def tell(what: str, done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= 2:
            told = time.monotonic()
            print(json.dumps({"seconds": told - began, "done": done} | store()), flush=True)

    def store() -> dict[str, int]:
        from ray._private.internal_api import get_memory_info_reply, get_state_from_address

        reply = get_memory_info_reply(get_state_from_address(ray.get_runtime_context().gcs_address)).store_stats
        return {"store": reply.object_store_bytes_used, "spilled": reply.spilled_bytes_total}

    result = protect(
        str(options.folder / "photos"),
        str(options.folder / "protected"),
        defender=options.defender,
        faces=options.faces,
        workers=options.workers,
        tell=tell,
    )
    print(
        json.dumps({"seconds": time.monotonic() - began, "result": result.counts | result.means} | store()), flush=True
    )
    connection.close()


def resident(process: psutil.Process) -> dict[str, float]:
    """MB resident by kind of process. What is shared (the object store) counts in each that touched it."""
    found: dict[str, float] = {"driver": process.memory_info().rss / 1e6}
    for child in process.children(recursive=True):
        try:
            name, rss = " ".join(child.cmdline()[:2]), child.memory_info().rss / 1e6
        except psutil.Error:
            continue
        kind = "actors" if "MapWorker" in name else "tasks" if "ray::" in name else "ray"
        found[kind] = found.get(kind, 0.0) + rss
    return found


def main(argv: Sequence[str] = ()) -> None:
    """Print the curve."""
    parser = argparse.ArgumentParser(prog="bench collections", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=2_000)
    parser.add_argument("--defender", default="found")
    parser.add_argument("--faces", choices=("find", "whole"), default="find")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where photos and results are kept; default: a temporary folder")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.work:
        work(options)
        return
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = options.folder or Path(temporary)
        if not (options.folder / "photos").exists():
            size = make(options.folder / "photos", options.photos)
            print(f"{options.photos} photos, {size / 1e6:.0f} MB", flush=True)
        watch(options, [*argv, "--folder", str(options.folder), "--work"])


def watch(options: argparse.Namespace, argv: Sequence[str]) -> None:
    """Run the work and print what is seen of it every ten seconds, and the peaks of all that is seen."""
    command = [sys.executable, "-m", "bench", "collections", *argv]
    peaks: dict[str, float] = {}
    last: dict[str, Any] = {}
    shown = -1.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        watched = psutil.Process(process.pid)
        for line in process.stdout:
            row = json.loads(line)
            seen = {"store": row["store"] / 1e6, "spilled": row["spilled"] / 1e6} | resident(watched)
            peaks |= {name: max(peaks.get(name, 0.0), value) for name, value in seen.items()}
            last = row
            if "result" in row or row["seconds"] >= shown + 10:
                shown = row["seconds"]
                cells = "  ".join(f"{name} {value:.0f}" for name, value in seen.items())
                print(f"{row['seconds']:7.0f} s  {row.get('done', options.photos):7}  MB: {cells}", flush=True)
    if process.returncode or "result" not in last:
        sys.exit(f"protect ended with {process.returncode}")
    rate = options.photos / last["seconds"]
    print(f"{last['result']}")
    print(f"{options.photos} photos in {last['seconds']:.0f} s: {rate:.1f} per second, start and learning included")
    print("peak MB: " + "  ".join(f"{name} {value:.0f}" for name, value in peaks.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
