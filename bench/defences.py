"""What each packaged defence costs: seconds to learn on 128 photos and to protect 128, at 128 px with `editor-128`."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence

from tsdf_ray.defenders import DEFENDERS, Knowledge, make_defender
from tsdf_ray.detectors import load_detector
from tsdf_ray.faces import Counts, FacesConfig, load_splits
from tsdf_ray.generators.weights import load_family

DETECTORS = {"tsdf": ["retinaface"], "face_poison": ["retinaface"]}
"""Of the defences that need one."""


def main(argv: Sequence[str] = ()) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench defences", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="bfloat16", help="as packaged scenarios"
    )
    parser.add_argument("--only", nargs="*", choices=sorted(DEFENDERS), help="defences, default all")
    options = parser.parse_args(argv)
    family = load_family("editor-128").freeze()
    counts = Counts(defender=options.photos, attacker=1, evaluation=options.photos)
    splits = load_splits(FacesConfig(counts=counts), 0, family.attributes)
    known = {"retinaface": load_detector("retinaface")}
    print(f"seconds per {options.photos} photos, {options.precision}: median (min .. max) of {options.repeats} runs")
    print(f"{'defence':14} {'learn':>30} {'protect':>30}")
    for name in options.only or sorted(DEFENDERS):
        learn, protect = [], []
        for run in range(options.repeats):
            defender = make_defender(name, {"detectors": DETECTORS.get(name, [])})
            knowledge = Knowledge(run, 1, {family.name: family}, known, splits.defender, options.precision)
            began = time.perf_counter()
            state = defender.learn(knowledge)
            learned = time.perf_counter()
            defender.protect(state, splits.evaluation)
            learn.append(learned - began)
            protect.append(time.perf_counter() - learned)
        cells = [f"{statistics.median(s):.2f} ({min(s):.2f} .. {max(s):.2f})" for s in (learn, protect)]
        print(f"{name:14} {cells[0]:>30} {cells[1]:>30}  load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
