"""The weighted mean of two generators of one family and size: a point between two stages of a training.

    python scripts/average_weights.py FIRST SECOND 0.7 OUT.safetensors     # .3 of FIRST's generator, .7 of SECOND's

Other parts (discriminator, classifier) and the settings are SECOND's. Between stages of one run the mean keeps what
both do well (Wortsman et al. 2022, arXiv 2203.05482).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tsdf_ray.generators import Tensors, load_family, save_family
from tsdf_ray.generators.base import check_tensors


def mean(first: Tensors, second: Tensors, weight: float) -> Tensors:
    """Floating-point tensors of `generator.*`, `weight` of the second; the others as in the second."""
    mixed = dict(second)
    for name, value in second.items():
        if name.startswith("generator.") and np.issubdtype(value.dtype, np.floating):
            mixed[name] = ((1 - weight) * first[name] + weight * value).astype(value.dtype)
    return mixed


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("weight", type=float)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    first, second = load_family(args.first), load_family(args.second)
    check_tensors(str(args.first), second.tensors(("generator",)), first.tensors(("generator",)))
    second.load(mean(first.tensors(), second.tensors(), args.weight))
    save_family(args.out, second)


if __name__ == "__main__":
    main()
