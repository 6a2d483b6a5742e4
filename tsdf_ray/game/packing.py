"""How bundles of resources lie over nodes: a plain simulation of what Ray's scheduler does, and words for it.

A bundle lies on one node. As in Ray: bundles with more GPUs are laid first, on the node of which they leave the largest
part free; PACK then fills that node before it takes another, SPREAD takes every node before it takes one twice,
STRICT_PACK wants one node for all, STRICT_SPREAD one node for each.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

Bundle = Mapping[str, float]
"""Amount by resource: `{"CPU": 1.0, "GPU": 0.5}`."""
WHERE = {"STRICT_PACK": "on one node", "STRICT_SPREAD": "on different nodes"}
_SLACK = 1e-6


def fits(bundle: Bundle, free: Bundle) -> bool:
    """Is there enough of everything?"""
    return all(free.get(name, 0.0) >= amount - _SLACK for name, amount in bundle.items())


def together(bundles: Sequence[Bundle]) -> dict[str, float]:
    """The sum of bundles."""
    return {name: sum(b.get(name, 0.0) for b in bundles) for name in dict.fromkeys(n for b in bundles for n in b)}


def lay(bundles: Sequence[Bundle], strategy: str, free: Sequence[Bundle]) -> list[int | None]:
    """The node of each bundle; None where none has room (with STRICT_PACK: all of them or none)."""
    if strategy == "STRICT_PACK":
        return [_roomiest(together(bundles), free, range(len(free)))] * len(bundles)
    left = [dict(node) for node in free]
    waiting = sorted(range(len(bundles)), key=lambda b: (-bundles[b].get("GPU", 0.0), -sum(bundles[b].values()), b))
    nodes: list[int | None] = [None] * len(bundles)
    unused = set(range(len(free)))
    while waiting:
        first = waiting.pop(0)
        node = _roomiest(bundles[first], left, sorted(unused))
        if node is None and strategy != "STRICT_SPREAD":
            node = _roomiest(bundles[first], left, range(len(left)))
        if node is None:
            continue
        unused.discard(node)
        for bundle in [first, *waiting] if strategy == "PACK" else [first]:
            if fits(bundles[bundle], left[node]):
                nodes[bundle] = node
                take(bundles[bundle], left[node])
        waiting = [bundle for bundle in waiting if nodes[bundle] is None]
    return nodes


def take(bundle: Bundle, free: dict[str, float]) -> None:
    """Out of what is free."""
    for name, amount in bundle.items():
        free[name] = free.get(name, 0.0) - amount


def _roomiest(bundle: Bundle, free: Sequence[Bundle], among: Sequence[int]) -> int | None:
    """The first of the nodes that keep the largest part of what the bundle asks for."""
    able = [node for node in among if fits(bundle, free[node])]
    return max(able, key=lambda node: _kept(bundle, free[node]), default=None)


def _kept(bundle: Bundle, free: Bundle) -> float:
    return sum(1 - amount / max(free.get(name, 0.0), amount) for name, amount in bundle.items() if amount > 0)


def slots(bundles: Sequence[Bundle], strategy: str, nodes: Sequence[Bundle], most: int) -> int:
    """How many times all the bundles fit on the nodes at once, at most `most`."""
    if len(bundles) == 1 or strategy == "STRICT_PACK":
        whole = together(bundles)
        return min(most, sum(min([most, *_times(whole, node)]) for node in nodes))
    left = [dict(node) for node in nodes]
    for made in range(most):
        placed = lay(bundles, strategy, left)
        if None in placed:
            return made
        for bundle, node in zip(bundles, placed, strict=True):
            assert node is not None
            take(bundle, left[node])
    return most


def _times(bundle: Bundle, node: Bundle) -> list[int]:
    return [math.floor(node.get(name, 0.0) / amount + _SLACK) for name, amount in bundle.items() if amount > 0]


def amounts(bundle: Bundle) -> str:
    """`1 CPU, 0.5 GPU`."""
    return ", ".join(
        f"{round(amount, 4):g} {name}{'s' if name in {'CPU', 'GPU'} and (amount > 1 or amount == 0) else ''}"
        for name, amount in bundle.items()
    )


def demand(bundles: Sequence[Bundle], strategy: str) -> str:
    """`2 x (1 CPU, 1 GPU) on different nodes`."""
    counted = Counter(amounts(bundle) for bundle in bundles)
    text = " + ".join(f"{times} x ({what})" for what, times in counted.items())
    return f"{text} {WHERE[strategy]}" if strategy in WHERE and len(bundles) > 1 else text


def kinds(nodes: Sequence[Bundle]) -> str:
    """`2 x (8 CPUs, 1 GPU), 1 x (4 CPUs, 0 GPUs)`: nodes that are alike are counted."""
    shown = [amounts({name: node.get(name, 0.0) for name in ("CPU", "GPU")}) for node in nodes]
    return ", ".join(f"{times} x ({what})" for what, times in Counter(shown).items()) or "no nodes"
