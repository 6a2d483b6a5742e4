"""How work is shared among workers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tsdf_ray.crew import shares

COSTS = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=24)


def dearest(costs: list[float], size: int) -> float:
    """The least that the dearest of `size` contiguous shares can cost, by trying all of them, one cut at a time."""
    best = {0: 0.0} | {end: sum(costs[:end]) for end in range(1, len(costs) + 1)}
    for _ in range(size - 1):
        best = {
            end: min(max(best[cut], sum(costs[cut:end])) for cut in range(end + 1)) for end in range(len(costs) + 1)
        }
    return best[len(costs)]


@given(COSTS, st.integers(1, 6))
def test_shares_are_contiguous_and_as_even_as_can_be(costs: list[float], size: int) -> None:
    found = shares(costs, size)
    assert len(found) == size
    assert [n for own in found for n in own] == list(range(len(costs)))
    assert max(sum(costs[n] for n in own) for own in found) <= dearest(costs, size) * (1 + 1e-5)


@given(st.integers(1, 40), st.integers(1, 6), st.floats(0.1, 1e12))
def test_equal_items_are_shared_by_number(items: int, size: int, cost: float) -> None:
    found = shares([cost] * items, size)
    assert max(map(len, found)) == -(-items // size)
