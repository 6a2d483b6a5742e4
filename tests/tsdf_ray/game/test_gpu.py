"""What a role computes on a GPU is near what it computes on the CPU, and a shared GPU is empty between steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tsdf_ray.crew import Seat
from tsdf_ray.game.evaluator import EvaluatorRole
from tsdf_ray.game.executor import run_step
from tsdf_ray.game.materials import Materials, load_materials
from tsdf_ray.game.players import AttackerRole, DefenderRole
from tsdf_ray.game.spec import MatchSpec, all_matches
from tsdf_ray.scenario import load_scenario

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
WORKSPACE = 64 << 20
"""What cuBLAS and cuDNN may keep for themselves."""


@pytest.fixture(autouse=True)
def _whole_floats() -> Iterator[None]:
    """TF32 would round where a CPU does not."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def match() -> MatchSpec:
    scenario = load_scenario("smoke", ("precision=float32",))
    return all_matches(scenario)[0]


@pytest.fixture(scope="module")
def materials(match: MatchSpec) -> Materials:
    return load_materials(match.scenario, match.seed)


def step(role: Any, match: MatchSpec, name: str, *args: Any) -> Any:
    result = run_step(role, match, name, 1, args)[0]
    if role._seat.shares_device:
        assert torch.cuda.memory_allocated() < WORKSPACE
    return result


def played(match: MatchSpec, materials: Materials, seat: Seat, published: Any = None) -> tuple[Any, ...]:
    """Learned, published, prepared and measured; `published` in the place of what was learned here."""
    defender, attacker, judge = (kind(match, materials, seat) for kind in (DefenderRole, AttackerRole, EvaluatorRole))
    shown = materials.generator if match.shows_last_round else None
    learned = step(defender, match, "learn", shown)
    own = step(defender, match, "publish", learned, shown)
    published = published or own
    studied = step(attacker, match, "study", published)
    prepared = step(attacker, match, "prepare", published, studied)
    return learned, own, prepared, step(judge, match, "before", materials.generator, published, studied)


@pytest.mark.parametrize("shared", [False, True])
def test_a_gpu_gets_what_a_cpu_gets(match: MatchSpec, materials: Materials, shared: bool) -> None:
    learned, published, prepared, measured = played(match, materials, Seat())
    on_gpu = played(match, materials, Seat(device="cuda", shares_device=shared), published)
    # A gradient of nearly nothing may turn its sign, and what follows from it.
    apart = np.abs(learned.tensors["w"] - on_gpu[0].tensors["w"])
    assert (apart < 1e-5).mean() > 0.9
    np.testing.assert_array_equal(prepared.found_N, on_gpu[2].found_N)
    np.testing.assert_allclose(prepared.boxes_N4, on_gpu[2].boxes_N4, atol=0.1)
    for one, other in zip(measured.rows.to_pylist(), on_gpu[3].rows.to_pylist(), strict=True):
        assert (one["metric"], one["photo"], one["edit"]) == (other["metric"], other["photo"], other["edit"])
        if one["metric"] in {"l2_mask", "psnr", "ssim", "forgery_ssim"}:
            assert one["value"] == pytest.approx(other["value"], rel=0.01, abs=0.01), one
