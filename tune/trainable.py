"""The trial as Ray Tune runs it: a process that plays one trial after another, a round per step."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from ray import tune as ray_tune

from tsdf_ray.errors import UserError
from tsdf_ray.game.materials import Materials, load_materials
from tsdf_ray.game.needs import generator_weights
from tsdf_ray.game.plan import Plan
from tsdf_ray.kept import KEPT, SEARCH_BYTES
from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search_trials import real_values, setting_content
from tsdf_ray.store.atomic import write_json
from tune.outcome import Outcome
from tune.scheduler import NUMBER, rung_sign
from tune.trial import MatchTrial, Play, PlayFactory, Setting


def trial_folder(root: Path, number: int) -> Path:
    """Run directory of a trial."""
    return root / "trials" / f"{number:04d}"


def trial_scenario(scenario: Scenario, number: int, params: dict[str, Any]) -> Scenario:
    """What a trial plays: the searched players with the trial's values, its seeds, nobody who is held out."""
    search = scenario.search
    assert search is not None, "only a scenario with a search has trials"
    return setting_content(
        scenario,
        real_values(search, params),
        name=f"{scenario.name}/trial-{number}",
        seeds=search.seeds or scenario.seeds,
        held_out_use="rest",
    )


def _generators(scenario: Scenario) -> tuple[str, ...]:
    """What the materials of a trial depend on, of all that a search can change."""
    return tuple(weights for _, weights in generator_weights(scenario))


class TrialTrainable(ray_tune.Trainable):  # type: ignore[misc]  # Ray has no types
    """Keeps its process, with what it has loaded, from trial to trial (`reuse_actors`)."""

    def setup(
        self,
        config: dict[str, Any],
        root: str = "",
        scenario_json: str = "",
        materials: dict[int, Materials] | None = None,
        roles: Plan | None = None,
        play: PlayFactory = MatchTrial,
    ) -> None:
        """`config`: number, parameters and reported rounds of a trial; the rest is the same for all trials."""
        KEPT.resize(SEARCH_BYTES)
        self._root = Path(root)
        self._scenario = Scenario.model_validate_json(scenario_json)
        self._materials = {_generators(trial_scenario(self._scenario, 0, {})): materials or {}}
        self._roles = roles
        self._factory = play
        self._play: Play | None = None
        self._trial_config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial takes its place in this process."""
        self._leave()
        self._trial_config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """One round."""
        try:
            if self._play is None:
                # Not in setup: an error there has no way to the table, and Tune would try it again and again.
                self._play = self._factory(self._setting())
            outcome: Outcome = self._play.step()
        except UserError as error:
            outcome = Outcome(int(self._trial_config["reported"]) + 1, failed=str(error))
        except Exception as error:  # noqa: BLE001 - a bug ends this trial; Tune would try it again and again
            folder = trial_folder(self._root, int(self._trial_config[NUMBER]))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            reason = f"{type(error).__name__}: {error} (see error.txt in its folder)"
            outcome = Outcome(int(self._trial_config["reported"]) + 1, failed=reason)
        search = self._scenario.search
        assert search is not None, "only a scenario with a search has trials"
        value = outcome.report.values.get(search.rung_objective) if outcome.report else None
        rung = None if value is None else rung_sign(self._scenario) * value
        return outcome.result(done=outcome.round >= self._scenario.rounds, rung=rung)

    def cleanup(self) -> None:
        """The trial's folder is left as it is."""
        self._leave()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Only a note: the trial's own folder is its checkpoint."""
        folder = trial_folder(self._root, int(self._trial_config[NUMBER]))
        write_json(Path(checkpoint_dir) / "trial.json", {"folder": str(folder)})

    def load_checkpoint(self, checkpoint: Any) -> None:
        """The trial's folder says where it stands."""

    def _setting(self) -> Setting:
        if not (self._root / "run.json").exists():
            raise UserError(f"{self._root}: is not on this machine; --out must be a folder that all machines share")
        config = self._trial_config
        number = int(config[NUMBER])
        search = self._scenario.search
        assert search is not None, "only a scenario with a search has trials"
        scenario = trial_scenario(self._scenario, number, config["params"])
        folder, named = trial_folder(self._root, number), _generators(scenario)
        if named not in self._materials:
            # Searched generators: they bring weights of their own, and may want photos with other labels.
            self._materials[named] = {seed: load_materials(scenario, seed) for seed in scenario.seeds}
        return Setting(folder, scenario, search, self._materials[named], self._roles, int(config["reported"]))

    def _leave(self) -> None:
        if self._play is not None:
            self._play.close()
            self._play = None
