"""Tests a plug-in's author subclasses, one per role, and models small enough for tests. Needs pytest and hypothesis."""

from __future__ import annotations

import pytest

# A contract that fails shows the values, as a test file's own assertions do.
pytest.register_assert_rewrite(
    *(f"tsdf_ray.testing.{role}_contract" for role in ("attacker", "defender", "detector", "generator"))
)
