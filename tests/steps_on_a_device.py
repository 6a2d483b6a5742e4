"""Run what a role's seat has on its device, on the CPU and on a device that is pretended; print what differs.

A process of its own: pretending changes torch for good. See test_devices.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from pretended_device import Pretended, pretend

from tsdf_ray.crew import Seat
from tsdf_ray.defenders import Knowledge, make_defender
from tsdf_ray.defenders.objectives import CleanView, ObjectiveConfig, hiding_loss, output_loss
from tsdf_ray.detectors import load_detector
from tsdf_ray.game.evaluator import EvaluatorRole
from tsdf_ray.game.executor import run_step
from tsdf_ray.game.materials import load_materials
from tsdf_ray.game.players import AttackerRole, DefenderRole
from tsdf_ray.game.role import Role
from tsdf_ray.game.spec import all_matches
from tsdf_ray.generators import load_family
from tsdf_ray.judges import Embedding, load_judge
from tsdf_ray.metrics import Evaluator, Stage
from tsdf_ray.metrics.lpips import LAYERS, Lpips
from tsdf_ray.scenario import load_scenario
from tsdf_ray.testing.linear import BrightCells, LinearFamily
from tsdf_ray.testing.tiny import tiny_editor, tiny_faces

PHOTOS = tiny_faces(6)
EOT = [{"kind": kind} for kind in ("none", "jpeg", "blur", "median", "tv", "bit_depth")]
EOT[1]["quality"] = 80  # type: ignore[assignment]
BRIGHT = {"detectors": ["bright"], "batch": 4}
POISON = {"batch": 2, "steps": 3}
DEFENCES: dict[str, dict[str, Any]] = {
    "found": {"batch": 4, "epochs": 2},
    "found, each": {"batch": 4, "per_image": True, "per_image_steps": 2, "feature_loss": "summed"},
    "pgd": {"batch": 4, "steps": 12, "eot": EOT},
    "cmua": {"batch": 4, "steps": 2},
    "anti_forgery": {"batch": 2, "steps": 2},
    "face_poison": BRIGHT | {"steps": 3, "masks": 2, "spectra": 2},
    "tsdf": BRIGHT | {"poison": POISON, "share": {"fraction": 0.3, "choice": "weakest"}},
    "tsdf, squared": BRIGHT | {"poison": POISON | {"lambda_f": 0.1, "score_form": "squared", "rule": "adam"}},
    "tsdf, universal": BRIGHT | {"poison": POISON | {"universal": True, "objective": "fabricate"}},
}


def defence(name: str, device: str) -> Iterator[Any]:
    families = [tiny_editor(1), tiny_editor(2), LinearFamily()]
    known = {f"g{i}": family.freeze().to(device) for i, family in enumerate(families)}
    knowledge = Knowledge(
        0, 1, known, {"bright": BrightCells().to(device)}, PHOTOS, seat=Seat(device=device), micro_batch=3
    )
    defender = make_defender(name.split(",", 1)[0], DEFENCES[name])
    state = defender.learn(knowledge)
    yield from state.tensors.values()
    yield defender.protect(state, PHOTOS).pixels_BCHW


def detector(name: str, device: str) -> Iterator[Any]:
    from tsdf_ray.attackers.prepare import detect_all

    found, photos = load_detector(name).to(device), load_materials(smoke(), 0).splits.evaluation.take(range(3))
    for boxes in detect_all(found, photos.pixels_BCHW, 0.2, enlarge=1.5):
        yield boxes.boxes_N4.numpy()
        yield boxes.scores_N.numpy()
    x = photos.images().to(device).requires_grad_()
    view = CleanView.of(found, x.detach())
    kept = torch.tensor([True, False, True]).to(device)
    for options in ({}, {"score_form": "squared"}, {"objective": "fabricate"}):
        config = ObjectiveConfig.model_validate(options)
        raw = found.raw(x)
        loss = hiding_loss(raw, 3, config) if config.hides_by_log_odds else output_loss(raw, view, 64, config)
        (gradient,) = torch.autograd.grad(loss.sum() + sum(level.sum() for level in raw.features), x)
        yield gradient.cpu().numpy()
    yield view.take(kept).features[0].cpu().numpy()


def family(name: str, device: str) -> Iterator[Any]:
    made = load_family(f"{name}-128").freeze().to(device)
    photos = load_materials(smoke(), 0).splits.evaluation.select(made.attributes).take(range(2))
    x, target = photos.images().to(device).requires_grad_(), photos.labels().flip(0).to(device)
    out, mid = made.edit_and_features(x, target)
    (gradient,) = torch.autograd.grad(out.square().mean() + made.features(x, target).mean() + mid.mean(), x)
    yield out.detach().cpu().numpy()
    yield gradient.cpu().numpy()


class Means(torch.nn.Module):
    """A network from photos to vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3]."""
        return x.mean((2, 3)) * self.scale


def evaluator(name: str, device: str) -> Iterator[Any]:
    seed = torch.Generator().manual_seed(0)
    drawn = {
        f"features.{place}.{kind}": torch.randn(shape, generator=seed)
        for place, out, into, side, _, _ in LAYERS
        for kind, shape in (("weight", (out, into, side, side)), ("bias", (out,)))
    }
    linear = {f"lin{i}.model.1.weight": torch.rand(1, layer[1], 1, 1, generator=seed) for i, layer in enumerate(LAYERS)}
    judged = Evaluator(
        load_judge("judge-128", PHOTOS.attributes).to(device),
        {},
        PHOTOS,
        tiny_editor(1).freeze().to(device),
        features=Embedding(Means(), "means", 16, 3).to(device),
        identity=Embedding(Means(), "means", 16, 3).to(device),
        lpips=Lpips(drawn, linear).to(device),
        seat=Seat(device=device),
        batch=4,
    )
    changed = PHOTOS.with_pixels(PHOTOS.pixels_BCHW[::-1].copy())
    for rows in (
        judged.clean_rows(Stage(1, 1, "reference", model="none"), tiny_editor(2).freeze().to(device)),
        judged.forgery_rows(Stage(1, 0, "before"), tiny_editor(2).freeze().to(device), changed),
        judged.visibility_rows(Stage(1, 1, "visibility"), changed),
    ):
        yield np.array(repr(rows.to_pydict()))


def smoke() -> Any:
    """The smoke race in full precision: autocast rounds elsewhere on every kind of device."""
    scenario = load_scenario("smoke")
    return scenario.model_copy(update={"precision": "float32"})


CPU_STEPS: dict[str, Any] = {}


def roles(name: str, device: str) -> Iterator[Any]:
    """A round, the retraining aside; nothing of a role that shares its device is on it after a step."""
    (match, *_), materials = all_matches(smoke()), load_materials(smoke(), 0)
    seat = Seat(device=device, shares_device=True)
    players = [role(match, materials, seat) for role in (DefenderRole, AttackerRole, EvaluatorRole)]

    def step(role: Role, step: str, *args: Any) -> Any:
        result = run_step(role, match, step, 1, args)[0]
        for kept in role._kept:
            modules = kept.parts.values() if hasattr(kept, "parts") else [kept]
            assert not any(isinstance(p, Pretended) for module in modules for p in module.parameters())
        return result

    defender, attacker, judge = players
    shown = materials.generator if match.shows_last_round else None
    learned = step(defender, "learn", shown)
    published = step(defender, "publish", learned, shown)
    studied = step(attacker, "study", published)
    before = step(judge, "before", materials.generator, published, studied)
    prepared = step(attacker, "prepare", published, studied)
    if "retrained" not in CPU_STEPS:
        CPU_STEPS["retrained"] = step(attacker, "retrain", materials.generator, prepared)
    retrained = CPU_STEPS["retrained"]
    after = step(judge, "after", materials.generator, retrained, prepared, published, studied)
    yield learned.tensors["w"]
    yield published.evaluation.pixels_BCHW
    yield prepared.boxes_N4
    for measured in (before, after):
        yield np.array(repr(measured.rows.to_pydict()))
        yield from measured.samples.values()


CASES: dict[str, Callable[[str, str], Iterator[Any]]] = dict.fromkeys(DEFENCES, defence)
CASES |= dict.fromkeys(["mtcnn", "retinaface", "centerface"], detector)
CASES |= dict.fromkeys(["editor", "stargan", "attgan", "attentiongan", "hisd"], family)
CASES |= {"evaluator": evaluator, "roles": roles}


def main(names: list[str]) -> int:
    """Number of cases that differ or fail."""
    torch.set_num_threads(1)
    pretend()  # before the first gradient: torch makes a queue for each device it knows then
    wanted = {name: list(CASES[name](name, "cpu")) for name in names or CASES}
    bad = 0
    for name, values in wanted.items():
        try:
            got = list(CASES[name](name, "pretended"))
        except Exception as error:
            if "-v" in sys.argv:
                raise
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:300]}")
            bad += 1
            continue
        assert values, name
        # Some families have another memory layout on a CPU than elsewhere.
        near = dict[str, float](rtol=1e-3, atol=1e-5) if CASES[name] is family else dict[str, float](rtol=0, atol=0)
        same = [
            np.array_equal(a, b) if a.dtype.kind in "U" else np.allclose(a, b, **near)
            for a, b in zip(values, got, strict=True)
        ]
        if not all(same):
            print(f"{name}: differs in {same.count(False)} of {len(same)} results")
            bad += 1
    print(f"{len(wanted) - bad} of {len(wanted)} alike")
    return bad


if __name__ == "__main__":
    sys.exit(main([name for name in sys.argv[1:] if name != "-v"]))
