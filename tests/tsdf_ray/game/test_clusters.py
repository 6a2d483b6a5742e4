"""The grammar of --cluster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsdf_ray.errors import UserError
from tsdf_ray.game.clusters import parse_cluster


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("2x8gpu", [(64, 8), (64, 8)]),
        ("2x8gpu:96cpu", [(96, 8), (96, 8)]),
        ("2X8GPU", [(64, 8), (64, 8)]),
        ("96cpu:8gpu", [(96, 8)]),
        ("1x16cpu + 2x4GPUs:128CPUs", [(16, 0), (128, 4), (128, 4)]),
        ("16cpu", [(16, 0)]),
        ("1 x 1 gpu", [(8, 1)]),
    ],
)
def test_what_is_understood(text: str, nodes: list[tuple[float, float]]) -> None:
    supply = parse_cluster(text)
    assert list(supply.machines) == nodes
    assert (supply.cpus, supply.gpus) == (sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no amount"),
        ("2x", "'' is no amount"),
        ("x8gpu", "'' is no number of nodes"),
        ("0x8gpu", "'0' is no number of nodes"),
        ("2x8tpu", "'8tpu' is no amount"),
        ("2x8gpu:4gpu", "gpu is said twice"),
        ("2x8gpu:0cpu", "a node needs CPUs"),
        ("2x8gpu+", "'' is no amount"),
        ("2x0.5gpu", "'0.5gpu' is no amount"),
        ("99999x1cpu", "more than 10000 nodes"),
    ],
)
def test_what_is_not(text: str, words: str) -> None:
    with pytest.raises(UserError, match="--cluster") as caught:
        parse_cluster(text)
    assert words in str(caught.value)


@given(st.text(alphabet="12x+:cpugs 0.-", max_size=20))
def test_any_text_is_a_supply_or_a_mistake(text: str) -> None:
    try:
        supply = parse_cluster(text)
    except UserError:
        return
    assert all(cpus > 0 and gpus >= 0 for cpus, gpus in supply.machines)
