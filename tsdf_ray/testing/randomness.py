"""Global generators are nobody's: a check that what a plug-in did has left them alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def no_global_draws(seed: int = 0) -> Iterator[None]:
    """Whatever runs inside finds the global generators at `seed`, and must leave them there (AssertionError if not).

    Run the same thing under two seeds and compare: what draws from a global generator and puts it back is found too.
    """
    before = torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()
    try:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        seeded = torch.get_rng_state(), _numpy_state(), random.getstate()
        yield
        assert torch.equal(torch.get_rng_state(), seeded[0]), "the global generator was used (torch)"
        assert _numpy_state() == seeded[1], "the global generator was used (numpy)"
        assert random.getstate() == seeded[2], "the global generator was used (random)"
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def _numpy_state() -> tuple[bytes, int, int]:
    found = np.random.get_state(legacy=False)
    return found["state"]["key"].tobytes(), found["state"]["pos"], found["has_gauss"]
