"""Named randomness: every draw comes from a generator seeded by (run seed, round, role, purpose).

A seed set on the driver does not reach the processes of Ray actors, and global state would make the result depend on
who drew before. So the generator is made where the draw happens, from names.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def seed_for(run_seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) that depends on the run seed and on every name, in order, and on nothing else."""
    key = "\x1f".join([str(run_seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1


def torch_rng(run_seed: int, *names: str | int) -> torch.Generator:
    """A CPU torch generator for one named purpose; move the draws, not the generator, to a device."""
    rng = torch.Generator()
    rng.manual_seed(seed_for(run_seed, *names))
    return rng


def numpy_rng(run_seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for one named purpose."""
    return np.random.default_rng(seed_for(run_seed, *names))
