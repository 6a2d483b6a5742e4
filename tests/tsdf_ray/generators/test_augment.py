"""What the discriminator is shown: each photo shifted and with a hole, with gradients, from the named draws alone."""

from __future__ import annotations

import torch

from tsdf_ray.generators.augment import HOLE, SHIFT, augment

SIDE = 32


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp() -> torch.Tensor:
    """A photo whose every pixel is unique and positive: where it went can be read off."""
    return (torch.arange(3 * SIDE * SIDE).float() + 1).reshape(1, 3, SIDE, SIDE)


def test_the_same_draws_give_the_same_view_and_others_another() -> None:
    x = torch.rand(4, 3, SIDE, SIDE, generator=rng())
    assert torch.equal(augment(x, rng(1)), augment(x, rng(1)))
    assert not torch.equal(augment(x, rng(1)), augment(x, rng(2)))


def test_photos_are_moved_by_whole_pixels_up_to_the_limit_each_by_its_own_step() -> None:
    steps = set()
    for seed in range(200):
        seen = augment(ramp(), rng(seed))[0, 0]
        y, x = SIDE // 2, SIDE // 2
        value = int(seen[y, x])
        if value == 0:  # the hole
            continue
        steps.add(((value - 1) // SIDE - y, (value - 1) % SIDE - x))
    limit = int(SHIFT * SIDE)
    assert {max(abs(a), abs(b)) for a, b in steps} >= {limit}
    assert all(-limit <= a <= limit and -limit <= b <= limit for a, b in steps)
    assert len(steps) > 40


def test_the_hole_is_one_grey_square_that_hides_the_middle_no_more_than_the_corner() -> None:
    side, hidden = int(HOLE * SIDE), torch.zeros(SIDE, SIDE)
    for seed in range(300):
        seen = augment(ramp(), rng(seed))[0]
        hole = seen[0] == 0
        assert torch.equal(hole, seen[1] == 0)
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert int(rows) <= side
        assert int(columns) <= side
        assert int(hole.sum()) == int(rows * columns)
        hidden += hole
    middle, corner = hidden[12:20, 12:20].mean(), hidden[:4, :4].mean()
    assert 0.5 < float(middle / corner) < 2.0


def test_gradients_flow_through_what_is_shown_alone() -> None:
    x = ramp().requires_grad_()
    seen = augment(x, rng(3))
    seen.sum().backward()
    assert x.grad is not None
    # The border is mirrored, so that some pixels are shown twice; shown pixels and gradients agree in number.
    assert float(x.grad.sum()) == float((seen != 0).sum())
