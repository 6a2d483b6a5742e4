"""What a game is: the scenario, its strict YAML form, its digest."""

from tsdf_ray.scenario.entries import DefenderEntry
from tsdf_ray.scenario.load import find_scenario, load_scenario, packaged_scenarios
from tsdf_ray.scenario.model import Evaluation, Scenario
from tsdf_ray.scenario.resources import Resources, Workers

__all__ = [
    "DefenderEntry",
    "Evaluation",
    "Resources",
    "Scenario",
    "Workers",
    "find_scenario",
    "load_scenario",
    "packaged_scenarios",
]
