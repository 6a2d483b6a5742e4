"""Where a search stands, in a few words: the best value so far, or the size of the front."""

from __future__ import annotations

from collections.abc import Sequence

from tsdf_ray.scenario.search import SearchConfig
from tsdf_ray.store.trials import Trial
from tune.front import best_trials, front_of


def standing(search: SearchConfig, trials: Sequence[Trial]) -> str:
    """`best protection: 0.97 (trial 7)`, `front of 5`, or why there is neither."""
    if len(search.objectives) > 1:
        front = front_of(search, trials)
        return f"front of {len(front)}" if front else "no front yet"
    best, _ = best_trials(search, trials, 1)
    if not best or best[0].last is None:
        return "no best yet"
    name = next(iter(search.objectives))
    return f"best {name}: {best[0].last.values[name]:.4g} ({best[0].label})"
