"""What a wait says: where bundles would lie, what the nodes lack, and what can be done when time is up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdf_ray.game.packing import fits, lay, slots, take
from tsdf_ray.game.waiting import missing, waited_too_long, waiting_line

SEAT = {"CPU": 1.0, "GPU": 1.0}


def node(cpus: float, gpus: float = 0.0) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus}


# bundles, strategy, free nodes | what is missing
MISSING = [
    ([node(1)], "PACK", [node(2)], ""),
    ([{"CPU": 3.0}], "PACK", [node(2), node(2)], "1 CPU"),
    ([{"CPU": 0.5}], "PACK", [node(0.25)], "0.25 CPU"),
    ([SEAT], "PACK", [node(64), node(2, 0)], "1 GPU"),
    ([SEAT] * 4, "PACK", [node(8, 2), node(8, 1)], "1 GPU"),
    ([SEAT] * 4, "PACK", [node(1, 4)], "3 CPUs"),
    ([SEAT] * 4, "STRICT_PACK", [node(8, 3), node(8, 3)], "1 GPU"),
    ([SEAT] * 2, "STRICT_SPREAD", [node(8, 8)], "1 node with 1 CPU, 1 GPU"),
    ([SEAT] * 2, "STRICT_SPREAD", [node(8, 8), node(8, 0)], "1 GPU"),
    ([SEAT] * 2, "STRICT_SPREAD", [node(8, 1), node(8, 1)], ""),
    ([SEAT], "PACK", [node(0, 0)], "1 CPU and 1 GPU"),
    ([SEAT], "PACK", [], "1 node with 1 CPU, 1 GPU"),
    ([SEAT, SEAT], "SPREAD", [node(8, 2)], ""),
]


@pytest.mark.parametrize(("bundles", "strategy", "free", "text"), MISSING)
def test_what_is_missing(
    bundles: list[dict[str, float]], strategy: str, free: list[dict[str, float]], text: str
) -> None:
    assert missing(bundles, strategy, free) == text


def test_the_line() -> None:
    total = [node(8, 1), node(8, 1)]
    assert waiting_line([SEAT] * 2, "STRICT_SPREAD", total, [node(8, 1), node(7, 0)], 12.3, 600.0) == (
        "waiting for resources: 2 x (1 CPU, 1 GPU) on different nodes; there are 2 x (8 CPUs, 1 GPU), "
        "free now 1 x (8 CPUs, 1 GPU), 1 x (7 CPUs, 0 GPUs): missing 1 GPU (12 s of 600 s)"
    )
    assert waiting_line([node(1)], "PACK", total, total, 3, 10).endswith(
        ": missing nothing: being reserved (3 s of 10 s)"
    )
    halves = [node(8, 1.5)] * 2
    assert "missing a whole GPU: parts of several are free" in waiting_line([SEAT], "PACK", total, halves, 3, 10)
    alone = waiting_line([SEAT] * 2, "STRICT_SPREAD", total[:1], total[:1], 0, 60)
    assert alone.endswith(
        "missing 1 node with 1 CPU, 1 GPU (no node is large enough, or there are too few) (0 s of 60 s)"
    )


def test_the_error_says_whether_waiting_longer_would_help() -> None:
    total = [node(8, 1)]
    busy = str(waited_too_long([SEAT], "PACK", total, [node(8, 0)], 600.0))
    assert busy.startswith("resources.wait_seconds: not there after 600 s: 1 x (1 CPU, 1 GPU); there are 1 x (8 CPUs")
    assert busy.endswith("missing 1 GPU; others hold them: wait for them to end, or raise resources.wait_seconds")
    assert "add nodes, or lower the demand" in str(waited_too_long([SEAT] * 2, "PACK", total, total, 600.0))


BUNDLES = st.lists(
    st.builds(node, st.sampled_from([0.5, 1, 2]), st.sampled_from([0, 0.5, 1, 2])), min_size=1, max_size=5
)
NODES = st.lists(st.builds(node, st.integers(0, 6), st.integers(0, 4)), max_size=4)


@settings(deadline=None)
@given(bundles=BUNDLES, nodes=NODES, strategy=st.sampled_from(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]))
def test_no_node_is_given_more_than_it_has(
    bundles: list[dict[str, float]], nodes: list[dict[str, float]], strategy: str
) -> None:
    placed, left = lay(bundles, strategy, nodes), [dict(free) for free in nodes]
    for bundle, at in zip(bundles, placed, strict=True):
        if at is not None:
            assert fits(bundle, left[at])
            take(bundle, left[at])
    taken = [at for at in placed if at is not None]
    assert strategy != "STRICT_SPREAD" or len(set(taken)) == len(taken)
    assert strategy != "STRICT_PACK" or len(set(placed)) == 1
    assert (missing(bundles, strategy, nodes) == "") == (None not in placed)
    assert (slots(bundles, strategy, nodes, 3) >= 1) == (None not in placed)
