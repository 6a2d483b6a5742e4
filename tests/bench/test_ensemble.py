"""The bench's accounting on narrow networks: what runs is what is needed, and a plain loop runs more."""

from __future__ import annotations

import pytest
import torch

from bench import workload
from tsdf_ray.defenders.scene import input_diversity


@pytest.fixture(scope="module")
def load() -> workload.Workload:
    return workload.Workload.make(2, "cpu", small=True)


def test_needed_flops_by_hand(load: workload.Workload) -> None:
    """StarGAN of width 8 with 2 blocks at 64 px, layer by layer."""
    alone = workload.Workload({"stargan": load.families["stargan"]}, {}, load.photos, load.device)
    cells = 64 * 64
    first, downs = 2 * cells * 8 * 8 * 49, 2 * cells // 4 * 16 * 8 * 16 + 2 * cells // 16 * 32 * 16 * 16
    blocks = 4 * 2 * cells // 16 * 32 * 32 * 9
    ups = 2 * cells // 16 * 32 * 16 * 16 + 2 * cells // 4 * 16 * 8 * 16
    last = 2 * cells * 3 * 8 * 49
    encoder, decoder = first + downs + blocks, ups + last
    assert workload.needed(alone)["stage1"] == pytest.approx((8 * encoder + 2 * decoder) / 1e9, rel=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_product_executes_what_is_needed(load: workload.Workload, precision: str) -> None:
    must = workload.needed(load)
    one, two = workload.StageOne(load, precision), workload.StageTwo(load, precision)
    one.visit()
    assert workload.flops(one.batch) / 2 == pytest.approx(must["stage1"], rel=0.05)
    assert workload.flops(two.step) / 2 == pytest.approx(must["stage2"], rel=0.05)


def test_a_plain_loop_executes_more(load: workload.Workload) -> None:
    must = workload.needed(load)
    one, two = workload.StageOne(load, "float32"), workload.StageTwo(load, "float32")
    load.trainable(on=True)
    try:
        assert workload.flops(lambda: workload.plain_batch(load, one)) / 2 > 1.8 * must["stage1"]
        assert workload.flops(lambda: workload.plain_step(load, two)) / 2 > 1.8 * must["stage2"]
    finally:
        load.trainable(on=False)


def test_one_generator_at_a_time_gives_the_joint_gradient(load: workload.Workload) -> None:
    """Against one graph over all generators, in float32."""
    stage = workload.StageOne(load, "float32")
    visit, w = stage.visit(), stage.start.clone().requires_grad_()
    rng, total = torch.Generator().manual_seed(1), torch.zeros(())
    for name, family in load.families.items():
        seen = input_diversity((stage.work.x_BCHW + w).clamp(-1, 1), rng)
        out, mid = family.edit_and_features(seen, visit.target[name])
        output = (out - visit.clean[name].output_BCHW).square().mean()
        feature = (workload.at_feature_size(mid) - visit.clean[name].features_BFHW).square().mean()
        total = total - (0.7 * output + 0.3 * feature) / 4
    (want,) = torch.autograd.grad(total, w)
    error = (stage.gradient() - want).abs().max() / want.abs().max()
    assert float(error) < 1e-6
