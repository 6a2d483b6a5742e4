"""What a game is: the scenario, its strict YAML form, its digest."""

from tsdf_ray.scenario.entries import DefenderEntry
from tsdf_ray.scenario.load import find_scenario, load_scenario, packaged_scenarios
from tsdf_ray.scenario.model import Evaluation, Resources, Scenario

__all__ = [
    "DefenderEntry",
    "Evaluation",
    "Resources",
    "Scenario",
    "find_scenario",
    "load_scenario",
    "packaged_scenarios",
]
