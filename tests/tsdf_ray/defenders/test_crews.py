"""Several workers of a defender, against one: the same bits, the work divided, and what one meets all meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from counted_family import CountedFamily

from tsdf_ray.crew import Crew, Seat
from tsdf_ray.defenders import DefenceState, Defender, DefenderConfig, Knowledge, make_defender
from tsdf_ray.defenders.interruption import Interruption, InterruptionConfig
from tsdf_ray.errors import MatchFailed, UserError
from tsdf_ray.faces.edits import draw_edits
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.base import Family
from tsdf_ray.randomness import torch_rng
from tsdf_ray.testing.crews import in_crew
from tsdf_ray.testing.linear import BrightCells, LinearFamily
from tsdf_ray.testing.tiny import tiny_editor, tiny_faces

PHOTOS = tiny_faces(7)
EOT = [{"kind": "none"}, {"kind": "blur", "sigma": 1.0}, {"kind": "resize", "size": 24}]
BRIGHT = {"detectors": ["bright"]}
CASES: dict[str, dict[str, Any]] = {
    "none": {},
    "noise": {},
    "found": {"batch": 4, "epochs": 3},
    "found, channels": {"batch": 4, "epochs": 2, "eot": EOT},
    "found, summed": {"batch": 4, "epochs": 2, "feature_loss": "summed"},
    "found, each": {"batch": 3, "per_image": True, "per_image_steps": 4},
    "pgd": {"batch": 3, "steps": 4, "eot": EOT},
    "cmua": {"batch": 4, "steps": 2, "eot": EOT},
    "anti_forgery": {"batch": 2, "steps": 3},
    "face_poison": BRIGHT | {"batch": 3, "steps": 3, "masks": 3, "spectra": 2},
    "tsdf": BRIGHT | {"batch": 4, "poison": {"batch": 2, "steps": 3}, "share": {"fraction": 0.3, "choice": "weakest"}},
    "tsdf, universal": BRIGHT
    | {"batch": 4, "poison": {"batch": 2, "steps": 3, "universal": True, "lambda_f": 0.1, "objective": "fabricate"}},
}


# Made once: fresh weights are drawn from a state that threads share.
FAMILIES: dict[str, Family] = {
    "one": tiny_editor(1).freeze(),
    "two": tiny_editor(2).freeze(),
    "linear": LinearFamily((1.0, 0.5, 0.2)).freeze(),
}


def known(crew: Crew | None = None, micro: int | None = None, known_families: Mapping[str, Any] | None = None) -> Any:
    seat = Seat() if crew is None else Seat(crew)
    models = known_families or FAMILIES
    return Knowledge(3, 1, models, {"bright": BrightCells()}, PHOTOS, seat=seat, micro_batch=micro)


def results(name: str, knowledge: Knowledge) -> dict[str, np.ndarray]:
    defender = make_defender(name.split(",", 1)[0], CASES[name])
    state = defender.learn(knowledge)
    return dict(state.tensors) | {"published": defender.protect(state, PHOTOS).pixels_BCHW}


def agree(name: str, size: int, micro: int | None) -> None:
    alone = results(name, known(micro=micro))
    for got in in_crew(size, lambda crew: results(name, known(crew, micro))):
        assert got.keys() == alone.keys()
        for key, value in alone.items():
            assert got[key].tobytes() == value.tobytes(), f"{size} workers, {key}"


@pytest.mark.parametrize(("size", "micro"), [(2, None), (3, 3)])
@pytest.mark.parametrize("name", CASES)
def test_workers_get_what_one_gets(name: str, size: int, micro: int | None) -> None:
    agree(name, size, micro)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "micro"), [(3, None), (2, 1), (3, 1), (2, 3), (5, 2)])
@pytest.mark.parametrize("name", CASES)
def test_any_number_of_workers_gets_what_one_gets(name: str, size: int, micro: int | None) -> None:
    agree(name, size, micro)


@pytest.mark.parametrize("universal", [True, False])
@pytest.mark.parametrize("loss", ["per_model", "summed"])
def test_micro_batches_add_up_to_the_undivided_gradient(loss: str, universal: bool) -> None:
    config = InterruptionConfig.model_validate({"batch": 7, "feature_loss": loss, "eot": EOT[1:]})
    w = (torch.rand(1 if universal else 7, 3, 32, 32, generator=torch_rng(0, "w")) * 2 - 1) * 0.05
    weights = torch.tensor([[0.5], [0.2], [0.3]]).expand(3, len(w)).contiguous()

    def gradients(micro: int | None, draw: int) -> tuple[torch.Tensor, ...]:
        work = Interruption(config, known(micro=micro), PHOTOS)
        visit = work.visit(range(7), lambda own_BA, names: draw_edits(own_BA, names, torch_rng(draw, "edits")))
        of_features = work.feature_gradient(w, visit, torch_rng(draw, "draws"))
        return of_features, *work.output_gradient(w, visit, weights, torch_rng(draw, "draws"))

    for draw in (3, 4):  # each through a channel of its own, framed and not
        whole = gradients(None, draw)
        for micro in (1, 3):
            for got, wanted in zip(gradients(micro, draw), whole, strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-3, atol=float(wanted.abs().max()) * 1e-4)


def test_cmua_in_micro_batches_is_cmua() -> None:
    whole, parts = (results("cmua", known(micro=micro))["w"] for micro in (None, 2))
    # A gradient of nearly nothing may turn its sign, by rounding.
    assert (np.abs(whole - parts) < 1e-6).mean() > 0.99
    assert np.abs(whole).max() > 0.01


WEIGHED = Counter(clean=1)
"""What a worker of several passes through a generator of several, to know what its forgeries cost."""


def counts(name: str, crew: Crew | None, micro: int | None, step: str) -> list[Counter[str]]:
    """Photos through each of two generators, in learning or in publishing."""
    models = {"a": CountedFamily().freeze(), "b": CountedFamily().freeze()}
    knowledge, defender = known(crew, micro, models), make_defender(name.split(",", 1)[0], CASES[name])
    state = defender.learn(knowledge)
    if step == "publish":
        for model in models.values():
            model.seen.clear()
        defender.protect(state, PHOTOS)
    return [model.seen for model in models.values()]


def test_an_ensemble_is_divided_over_workers() -> None:
    alone = counts("found", None, None, "learn")
    first, second = in_crew(2, lambda crew: counts("found", crew, None, "learn"))
    assert first == [alone[0] + WEIGHED, WEIGHED]
    assert second == [WEIGHED, alone[1] + WEIGHED]


class Dear(LinearFamily):
    """Three forgeries' work for one."""

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x_BCHW = torch.nn.functional.conv2d(x_BCHW, torch.eye(3).view(3, 3, 1, 1))
        return super().edit(x_BCHW, c_BA)


class Cheap(Dear):
    """One."""

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return LinearFamily.edit(self, torch.nn.functional.conv2d(x_BCHW, torch.eye(3).view(3, 3, 1, 1)), c_BA)


def test_what_costs_more_is_divided_finer() -> None:
    """Photos one at a time: four of the cheap generator cost what one and a third of the dear one cost."""

    def mine(crew: Crew) -> list[tuple[str, int]]:
        models = {"cheap": Cheap().freeze(), "dear": Dear().freeze()}
        work = Interruption(InterruptionConfig(batch=4), known(crew, 1, models), PHOTOS)
        parts = work.parts(4)
        return [(part.generator, part.rows.start) for part in parts[slice(*bounds(crew, parts, work))]]

    def bounds(crew: Crew, parts: list[Any], work: Interruption) -> tuple[int, int]:
        own = crew.mine(len(parts), work.costs(parts))
        return own.start, own.stop

    first, second = in_crew(2, mine)
    assert first == [("cheap", n) for n in range(4)] + [("dear", 0)]
    assert second == [("dear", n) for n in (1, 2, 3)]


@pytest.mark.parametrize(("name", "step"), [("found", "learn"), ("cmua", "learn"), ("pgd", "publish")])
def test_a_batch_is_divided_over_workers(name: str, step: str) -> None:
    alone = counts(name, None, 1, step)
    shares = in_crew(2, lambda crew: counts(name, crew, 1, step))
    weighed = WEIGHED["clean"] * 2 if name == "found" else 0
    for kind in alone[0]:
        done = [sum(seen[kind] for seen in share) - weighed * (kind == "clean") for share in shares]
        assert sum(done) == sum(seen[kind] for seen in alone), kind
        assert max(done) <= 0.6 * sum(done), kind  # 7 photos in batches of 4 and 3: 2 + 2 and 1 + 2


def test_poison_inside_w_is_divided_over_workers() -> None:
    def passes(crew: Crew | None) -> int:
        seen = []

        class Watched(BrightCells):
            def raw(self, x_BCHW: torch.Tensor) -> Any:
                seen.append(len(x_BCHW))
                return super().raw(x_BCHW)

        knowledge = replace(known(crew), detectors={"bright": Watched()})
        make_defender("tsdf", CASES["tsdf, universal"]).learn(knowledge)
        return sum(seen)

    shares = in_crew(2, passes)
    assert sum(shares) == passes(None)
    assert min(shares) >= 0.4 * sum(shares)


class Broken(LinearFamily):
    """Forges nothing finite of photos that begin with a white pixel."""

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        white = x_BCHW[:, :, 0, 0].amin(1) > 0.8
        return torch.where(white[:, None, None, None], torch.nan, 1.0) * super().edit(x_BCHW, c_BA)


@pytest.mark.parametrize("name", ["found", "cmua", "pgd", "anti_forgery"])
def test_what_one_worker_meets_all_meet(name: str) -> None:
    pixels = PHOTOS.pixels_BCHW.copy()
    pixels[:, :, 0, 0] = 0
    pixels[5, :, 0, 0] = 255
    photos = PHOTOS.with_pixels(pixels)

    def meet(crew: Crew) -> str:
        knowledge = replace(known(crew, 1, {"g": Broken().freeze()}), photos=photos)
        defender = make_defender(name, CASES[name])
        with pytest.raises(MatchFailed, match="not finite") as met:
            defender.protect(defender.learn(knowledge), photos)
        return str(met.value)

    assert len(set(in_crew(3, meet))) == 1


def test_halving_after_the_memory_ran_out_is_a_smaller_micro_batch() -> None:
    halved = results("found", replace(known(), seat=Seat(halvings=1)))  # batches of 4
    assert halved["w"].tobytes() == results("found", known(micro=2))["w"].tobytes()
    with pytest.raises(UserError, match="out of memory"):
        results("found", replace(known(micro=1), seat=Seat(halvings=1)))


class Mine(Defender):
    """A plug-in that knows of no crew: a universal w learned, and something of every photo."""

    name = "mine"
    config_class = DefenderConfig

    def learn(self, knowledge: Knowledge) -> DefenceState:
        return DefenceState(knowledge, {"w": knowledge.photos.images().mean(0, keepdim=True).numpy()})

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        return torch.from_numpy(state.tensors["w"]) - photos.images()


def test_a_defence_that_knows_of_no_crew_works_in_one() -> None:
    def play(crew: Crew | None) -> bytes:
        defender = Mine(DefenderConfig())
        return defender.protect(defender.learn(known(crew)), PHOTOS).pixels_BCHW.tobytes()

    assert set(in_crew(2, play)) == {play(None)}
