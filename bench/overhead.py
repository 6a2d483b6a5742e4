"""What Ray costs over in-process on the same match: the playing itself, with start-up and actor creation apart.

Both play the same match of `quickstart` (two rounds, fewer photos) in turn, several times. `play` is the wall time from
the first step's start to the last step's end, `work` the sum of all steps' seconds, `start` the time from the call to
the first step. Medians and spread; the ratio is taken pair by pair.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tsdf_ray import api
from tsdf_ray.scenario import Scenario

RUNS = 5
CHANGES = (
    "rounds=2",
    "faces.counts={defender: 64, attacker: 128, evaluation: 48}",
    "attackers={mtcnn: {collect: {photos: 64}, prepare: {detectors: [mtcnn]},"
    " retrain: {train: {steps: 30, batch: 8}}}}",
    "defenders={found: {kind: found}}",
)


def once(game: Scenario, executor: str, folder: Path) -> dict[str, float]:
    """Seconds of one run: start, play, work, all."""
    began = time.time()
    api.play(game, folder, executor=executor, report=False)
    ended = time.time()
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if "step" in event]
    first, last = min(event["start"] for event in steps), max(event["end"] for event in steps)
    work = sum(event["end"] - event["start"] for event in steps)
    return {"start": first - began, "play": last - first, "work": work, "all": ended - began}


def main(argv: Sequence[str] = ()) -> None:
    """Print the table."""
    game = Scenario.load("quickstart", CHANGES)
    seconds: dict[str, list[dict[str, float]]] = {"inprocess": [], "ray": []}
    with tempfile.TemporaryDirectory() as folder:
        for run in range(RUNS + 1):
            for executor, runs in seconds.items():
                measured = once(game, executor, Path(folder) / f"{executor}-{run}")
                if run:  # the first pair warms the file cache
                    runs.append(measured)
    print(f"one match of quickstart, 2 rounds, {RUNS} runs: median (min .. max) in seconds")
    for executor, runs in seconds.items():
        cells = []
        for key in ("start", "play", "work", "all"):
            values = [run[key] for run in runs]
            cells.append(f"{key} {statistics.median(values):.2f} ({min(values):.2f} .. {max(values):.2f})")
        print(f"{executor:>10}  " + "  ".join(cells))
    for key in ("play", "work"):
        ratios = [a[key] / b[key] for a, b in zip(seconds["ray"], seconds["inprocess"], strict=True)]
        print(f"ray / inprocess, {key}: {statistics.median(ratios):.3f} ({min(ratios):.3f} .. {max(ratios):.3f})")


if __name__ == "__main__":
    main()
