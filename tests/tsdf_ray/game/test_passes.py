"""The counts behind a scenario's cost: by hand on the smoke scenario, and against what the code really does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import tsdf_ray
from tsdf_ray.defenders import Knowledge, make_defender
from tsdf_ray.detectors import load_detector
from tsdf_ray.errors import UserError
from tsdf_ray.game.passes import match_lines
from tsdf_ray.generators.editor import Editor
from tsdf_ray.generators.trainer import Trainer
from tsdf_ray.judges import Judge
from tsdf_ray.metrics.forging import Forger
from tsdf_ray.scenario import Scenario
from tsdf_ray.testing.tiny import tiny_editor, tiny_faces

SIZE = 64


def counts(scenario: Scenario, *steps: str) -> Counter[tuple[str, str, str]]:
    found: Counter[tuple[str, str, str]] = Counter()
    for line in match_lines(scenario, *scenario.pairs[0]):
        if not steps or line.step in steps:
            found[line.step, line.model, line.what] += line.photos
    return found


def test_smoke_by_hand() -> None:
    """16 photos to learn on, 16 collected and 12 judged, 3 edits each; two rounds; shares 0, .1, .25, .5 and 1."""
    pairs = 12 * 3
    # Published by G_0, clean by G_0, noise by G_0; published, clean and noise by G_1; both by three snapshots: 12 sets.
    first = 12 * pairs + 2 * 12
    # Published and clean by G_1; published, clean, the first round's and noise by G_2; both by three snapshots.
    second = 12 * pairs + 12
    # before, clean, noise; after, clean, noise; three snapshots. Then before, after, later, clean, noise, snapshots.
    judged = 9 * pairs + 8 * pairs
    assert counts(Scenario.load("smoke")) == {
        ("learn", "editor", "edit"): 2 * 16,
        ("learn", "editor", "features_gradient"): 2 * 16 * 3,
        ("learn", "editor", "edit_gradient"): 2 * 16,
        ("publish", "retinaface", "detect"): 2 * (16 + 12),
        ("publish", "retinaface", "detect_gradient"): 2 * (16 + 12) * 4,
        ("prepare", "mtcnn", "detect"): 2 * 16,
        ("retrain", "editor", "step"): 2 * 8 * 4,
        ("evaluate", "editor", "edit"): first + second,
        ("evaluate", "judge", "judge"): judged,
        ("evaluate", "retinaface", "detect"): (12 + 12) + 12,
        ("evaluate", "mtcnn", "detect"): (12 + 12) + 12 + 2 * 16,
    }


class Seen:
    """Photos that pass through the light editor and one detector, told apart by whether they carry a gradient."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.photos: Counter[str] = Counter()
        self.inside = False
        for name, what in (("edit_and_features", "edit"), ("features", "features")):
            self._watch(monkeypatch, Editor, name, what)
        self.detector = load_detector("retinaface")
        for name in ("raw", "features"):
            self._watch(monkeypatch, type(self.detector), name, "detect")

    def _watch(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, what: str) -> None:
        real = getattr(owner, name)

        def watched(model: Any, x_BCHW: torch.Tensor, *rest: Any) -> Any:
            if not self.inside:  # a detector's `raw` may ask for its own `features`
                self.photos[what + ("_gradient" if x_BCHW.requires_grad else "")] += len(x_BCHW)
            self.inside, outer = True, self.inside
            try:
                return real(model, x_BCHW, *rest)
            finally:
                self.inside = outer

        monkeypatch.setattr(owner, name, watched)


# Through a channel no photo counts as hidden and stops early.
ALWAYS = {"eot": [{"kind": "none"}]}
DEFENCES: dict[str, dict[str, Any]] = {
    "none": {},
    "pgd": {"steps": 4},
    "cmua": {"steps": 2},
    "anti_forgery": {"steps": 2},
    "face_poison": {"detectors": ["retinaface"], "steps": 3, "masks": 2, "spectra": 2},
    "found": {"feature_steps": 2},
    "found per image": {"per_image": True, "per_image_steps": 12},
    "tsdf": ALWAYS | {"detectors": ["retinaface"], "poison": {"steps": 2}},
    "tsdf weakest": ALWAYS
    | {"detectors": ["retinaface"], "poison": {"steps": 1}, "share": {"fraction": 0.5, "choice": "weakest"}},
    "tsdf universal": ALWAYS | {"detectors": ["retinaface"], "poison": {"steps": 1, "universal": True}},
    "tsdf features": ALWAYS | {"detectors": ["retinaface"], "poison": {"steps": 1, "lambda_f": 1.0}},
}


@pytest.mark.parametrize("name", DEFENCES)
def test_a_defence_makes_the_passes_that_are_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, config = name.split(maxsplit=1)[0], DEFENCES[name]
    scenario = Scenario.model_validate(
        {
            "name": "count",
            "rounds": 1,
            "faces": {"size": SIZE, "counts": {"defender": 8, "attacker": 4, "evaluation": 4}},
            "defenders": {"d": {"kind": kind, **config}},
            "attackers": {"a": {"collect": {"photos": 4, "protected": 0.5}}},
        }
    )
    expected: Counter[str] = Counter()
    for (_, _, what), photos in counts(scenario, "learn", "publish").items():
        expected[what] += photos
    seen = Seen(monkeypatch)
    knowledge = Knowledge(
        0, 1, {"editor": tiny_editor(0).freeze()}, {"retinaface": seen.detector}, tiny_faces(8, size=SIZE)
    )
    defence = make_defender(kind, config)
    state = defence.learn(knowledge)
    for photos in (tiny_faces(2, 1, size=SIZE), tiny_faces(4, 2, size=SIZE)):
        defence.apply(state, photos)
    assert seen.photos == expected


def small_match(mode: str) -> Scenario:
    return Scenario.load(
        "smoke",
        (
            "defenders.tsdf={kind: noise}",
            f"attackers.mtcnn.retrain={{mode: {mode}, train: {{steps: 4, batch: 4, discriminator_steps: 2}}}}",
            "faces.counts={defender: 1, attacker: 8, evaluation: 4}",
            "attackers.mtcnn.collect.photos=4",
            "attackers.mtcnn.prepare={}",
            "evaluation={detectors: [], decay: [0, 0.5, 1], samples: 1}",
        ),
    )


@pytest.mark.parametrize("mode", ["finetune", "none"])
def test_a_match_makes_the_passes_that_are_counted(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = small_match(mode)
    seen: Counter[str] = Counter()
    edit, features, step = Forger.forge, Judge.features, Trainer.step

    def edited(*args: Any) -> Any:
        seen["edit"] += len(args[2])
        return edit(*args)

    def judged(*args: Any) -> Any:
        seen["judge"] += len(args[1])
        return features(*args)

    def stepped(trainer: Trainer, *args: Any) -> Any:
        seen["step"] += trainer.config.batch
        seen["critic"] += trainer.config.batch * (trainer.config.discriminator_steps - 1)
        return step(trainer, *args)

    monkeypatch.setattr(Forger, "forge", edited)
    monkeypatch.setattr(Judge, "features", judged)
    monkeypatch.setattr(Trainer, "step", stepped)
    tsdf_ray.play(scenario, tmp_path / "run", executor="inprocess", report=False)
    assert seen == {what: photos for (_, _, what), photos in counts(scenario, "retrain", "evaluate").items()}


def test_adversarial_retraining_by_hand() -> None:
    counted = counts(small_match("adversarial"), "retrain")
    # Half of every batch, in both discriminator steps of four steps, in two rounds; three sign steps each.
    assert counted["retrain", "editor", "edit"] == 2 * 4 * 2 * 2
    assert counted["retrain", "editor", "edit_gradient"] == 2 * 4 * 2 * 2 * 3


def test_a_divided_batch_makes_its_last_forgery_twice() -> None:
    divided = small_match("adversarial").model_copy(update={"micro_batch": 3})
    counted = counts(divided, "retrain")
    # Of three photos and of one: two and one are protected afresh. Every photo of a step is forged once more.
    assert counted["retrain", "editor", "edit_gradient"] == 2 * 4 * 2 * (2 + 1) * 3
    assert counted["retrain", "editor", "edit"] == 2 * 4 * 2 * (2 + 1) + 2 * 4 * 4
    plain = small_match("finetune").model_copy(update={"micro_batch": 3})
    assert counts(plain, "retrain")["retrain", "editor", "edit"] == 2 * 4 * 4
    assert not counts(small_match("finetune"), "retrain")["retrain", "editor", "edit"]


def test_an_official_generator_warms_a_discriminator_up() -> None:
    scenario = Scenario.load("smoke", ("generator=no/gen_00600000.pt", "attackers.mtcnn.retrain.warm_up=7"))
    assert counts(scenario, "retrain") == {("retrain", "hisd", "step"): 2 * 8 * 4, ("retrain", "hisd", "critic"): 7 * 4}


def test_a_surrogate_is_learned_against_in_place_of_the_generator() -> None:
    surrogate = ("defenders.tsdf.knowledge=surrogate", "defenders.tsdf.surrogate=attgan/weights.199.pth")
    models = {model for _, model, _ in counts(Scenario.load("smoke", surrogate), "learn")}
    assert models == {"attgan"}


def test_what_has_no_known_cost_is_named(tmp_path: Path) -> None:
    scenario = Scenario.load("smoke", (f"generator={tmp_path / 'mine.safetensors'}",))
    with pytest.raises(UserError, match=r"the cost of generator .*mine\.safetensors' is not known"):
        match_lines(scenario, *scenario.pairs[0])
