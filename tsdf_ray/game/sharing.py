"""What the workers of a role can divide among them: nothing else is divided, so more workers than that are idle."""

from __future__ import annotations

from tsdf_ray.crew import pieces
from tsdf_ray.defenders import CmuaConfig, InterruptionConfig
from tsdf_ray.errors import UserError
from tsdf_ray.scenario import Scenario


def items(scenario: Scenario, role: str) -> int:
    """The most items that a step of `role` falls into, of any player: micro-batches (times generators, of a defender),
    or evaluation photos."""
    if role == "evaluator":
        return scenario.faces.counts.evaluation
    if role == "attacker":
        trained = [a.retrain.train.batch for a in scenario.attackers.values() if a.retrain.mode != "none"]
        return max((len(pieces(batch, scenario.micro_batch)) for batch in trained), default=1)
    found = 1
    for name, entry in scenario.defenders.items():
        batch = getattr(entry.config, "batch", 1) if isinstance(entry.config, InterruptionConfig | CmuaConfig) else 1
        batch = max(batch, scenario.faces.counts.evaluation) if _per_photo(scenario, name) else batch
        found = max(found, (1 + len(entry.generators)) * len(pieces(batch, scenario.micro_batch)))
    return found


def _per_photo(scenario: Scenario, defender: str) -> bool:
    """Does the defence make a perturbation for every photo (then photos are what is shared)?"""
    config = scenario.defenders[defender].config
    return not isinstance(config, InterruptionConfig | CmuaConfig) or bool(getattr(config, "per_image", False))


def refuse_idle_groups(scenario: Scenario) -> None:
    """Raises UserError, naming the key, for a group of workers that has nothing to share in any match."""
    workers = scenario.resources.workers
    if workers.attacker > 1 and items(scenario, "attacker") == 1:
        if all(attacker.retrain.mode == "none" for attacker in scenario.attackers.values()):
            why, remedy = "no attacker retrains", "use one worker"
        else:
            why = "a training step takes its batch undivided"
            remedy = "set micro_batch below retrain.train.batch, or use one worker"
        raise UserError(
            f"resources.workers.attacker: {workers.attacker} workers have nothing to share: {why}; {remedy}"
        )
    if workers.defender > 1 and items(scenario, "defender") == 1:
        raise UserError(
            f"resources.workers.defender: {workers.defender} workers have nothing to share: one generator and "
            "undivided batches; set micro_batch below the defence's batch, or use one worker"
        )


def idle(scenario: Scenario) -> list[str]:
    """What to say about workers that will wait for others, by key; nobody is refused for it."""
    notes = []
    for role in ("defender", "attacker", "evaluator"):
        count, most = int(getattr(scenario.resources.workers, role)), items(scenario, role)
        if count > most:
            notes.append(f"resources.workers.{role}: {count} workers share at most {most} items; the others are idle")
    return notes
