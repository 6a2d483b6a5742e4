"""tsdf-ray: which photo protection still works after the deepfake attacker has adapted, and how sure are we?

The Python API equals the command line: `play`, `resume`, `protect`, `Scenario.load`, `Run`. Names are imported when
they are first used, so that `import tsdf_ray` costs nothing and `tsdf-ray --help` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsdf_ray.api import play, resume
    from tsdf_ray.protection import protect
    from tsdf_ray.scenario import Scenario
    from tsdf_ray.store.run import Run

_HOMES = {
    "play": "tsdf_ray.api",
    "resume": "tsdf_ray.api",
    "protect": "tsdf_ray.protection",
    "Run": "tsdf_ray.store.run",
    "Scenario": "tsdf_ray.scenario",
}

__all__ = ["Run", "Scenario", "play", "protect", "resume"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tsdf_ray' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
