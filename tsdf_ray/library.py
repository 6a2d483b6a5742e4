"""The library of packaged scenarios at a glance: question, cost and needs of each, from one small file.

Reading a scenario needs torch (its sections live beside the classes they configure); the list must not. So
`scenarios/index.json` holds what the list shows, made of the scenarios by `python -m tsdf_ray.library`; a test holds
them equal.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from tsdf_ray.game.estimate import Cost
from tsdf_ray.game.needs import Need


@dataclass(frozen=True)
class Entry:
    """One packaged scenario."""

    name: str
    question: str
    cost: Cost
    wants: tuple[Need, ...]
    """Everything it needs beyond the package."""

    @property
    def needs(self) -> list[str]:
        """What is not at hand of it, and the GPUs it asks for; each thing once."""
        gpus = self.cost.gpus_per_match
        machine = [f"{gpus:g} GPU{'s' if gpus > 1 else ''}"] if gpus else []
        return [*dict.fromkeys(need.what for need in self.wants if need.problem is not None), *machine]


def entries() -> list[Entry]:
    """The library, by name."""
    index: dict[str, Any] = json.loads(files("scenarios").joinpath("index.json").read_text(encoding="utf-8"))
    return [
        Entry(name, item["question"], Cost(**item["cost"]), tuple(_need(want) for want in item["wants"]))
        for name, item in index.items()
    ]


def build() -> str:
    """The index as JSON, made of the scenario files. Raises UserError when one is bad or its cost is not known."""
    from tsdf_ray.game.estimate import estimate
    from tsdf_ray.game.needs import needs_of
    from tsdf_ray.scenario import Scenario, packaged_scenarios

    index: dict[str, Any] = {}
    for name in packaged_scenarios():
        scenario = Scenario.load(name)
        cost = asdict(estimate(scenario))
        cost |= {key: float(f"{cost[key]:.6g}") for key in ("gflop", "longest")}
        index[name] = {
            "question": scenario.title,
            "cost": cost,
            "wants": [asdict(need) for need in needs_of(scenario)],
        }
    return json.dumps(index, indent=1) + "\n"


def _need(item: dict[str, Any]) -> Need:
    return Need(**item | {"inside": tuple(item["inside"])})


if __name__ == "__main__":
    sys.stdout.write(build())
