"""One match as data: what a role is built from, wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tsdf_ray.scenario import Scenario


@dataclass(frozen=True)
class MatchSpec:
    """One defender against one attacker with one seed. `scenario_json` is `Scenario.as_json()`."""

    scenario_json: str
    defender: str
    attacker: str
    seed: int

    @property
    def scenario(self) -> Scenario:
        """The checked scenario (parsed once per process: thousands of matches share it, none carries it along)."""
        return _parsed(self.scenario_json)

    @property
    def id(self) -> str:
        """Folder-safe and unique in a run."""
        return f"{self.defender}-vs-{self.attacker}-s{self.seed}"

    @property
    def rounds(self) -> int:
        """How many rounds are played."""
        return self.scenario.rounds

    @property
    def cumulative(self) -> bool:
        """Does the attacker keep what it collected in earlier rounds?"""
        return self.scenario.attackers[self.attacker].collect.pool == "cumulative"

    @property
    def shows_last_round(self) -> bool:
        """May the defender see the generator as the attacker retrained it (knowledge `last_round`)?"""
        return self.scenario.defenders[self.defender].knowledge == "last_round"


@lru_cache(maxsize=16)
def _parsed(scenario_json: str) -> Scenario:
    return Scenario.model_validate_json(scenario_json)


def all_matches(scenario: Scenario) -> list[MatchSpec]:
    """Every pair with every seed; seeds outermost, so that a stopped run has whole races."""
    text = scenario.as_json()
    return [MatchSpec(text, d, a, seed) for seed in scenario.seeds for d, a in scenario.pairs]
