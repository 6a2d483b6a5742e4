"""What a search must keep to that its sections alone cannot know."""

from __future__ import annotations

from tsdf_ray.scenario.search_paths import locate, with_values
from tsdf_ray.scenario.search_trials import (
    baseline_sides,
    option_of,
    real_values,
    resolve_point,
    trial_content,
    trial_sides,
)

__all__ = [
    "baseline_sides",
    "locate",
    "option_of",
    "real_values",
    "resolve_point",
    "trial_content",
    "trial_sides",
    "with_values",
]
