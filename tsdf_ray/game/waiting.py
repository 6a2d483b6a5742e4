"""What is missing while resources are waited for: a line every few seconds, and the error at the end. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tsdf_ray.errors import UserError
from tsdf_ray.game.packing import amounts, demand, kinds, lay, take, together


def missing(bundles: Sequence[Mapping[str, float]], strategy: str, free: Sequence[Mapping[str, float]]) -> str:
    """What the nodes lack for the bundles they have no room for: `1 GPU`, `1 GPU and 1 node with 2 CPUs`; empty when
    all fit.

    Every bundle that has no place is held against the node that lacks least for it. `free`: what each node has left.
    """
    placed = lay(bundles, strategy, free)
    if None not in placed:
        return ""
    homeless = [bundle for bundle, node in zip(bundles, placed, strict=True) if node is None]
    left = [dict(node) for node in free]
    for bundle, node in zip(bundles, placed, strict=True):
        if node is not None:
            take(bundle, left[node])
    if strategy == "STRICT_PACK":
        homeless = [together(bundles)]
    unused = [left[node] for node in range(len(left)) if node not in placed]
    nodes = unused if strategy == "STRICT_SPREAD" else left
    lacks: dict[str, float] = {}
    wanted: list[Mapping[str, float]] = []
    for bundle in homeless:
        nearest = min(nodes, key=lambda has: _shortfall(bundle, has), default=None)
        if nearest is None:
            wanted.append(bundle)
            continue
        for name, amount in bundle.items():
            short = amount - max(0.0, nearest.get(name, 0.0))
            if short > 1e-6:
                lacks[name] = lacks.get(name, 0.0) + short
        take(bundle, nearest)
        if strategy == "STRICT_SPREAD":
            nodes = [other for other in nodes if other is not nearest]
    parts = [amounts({name: lacks[name]}) for name in sorted(lacks)]
    parts += [f"1 node with {amounts(bundle)}" for bundle in wanted]
    return " and ".join(parts)


def _shortfall(bundle: Mapping[str, float], node: Mapping[str, float]) -> tuple[float, float]:
    """Lacking GPUs weigh more than lacking CPUs."""
    short = {name: max(0.0, amount - max(0.0, node.get(name, 0.0))) for name, amount in bundle.items()}
    return short.get("GPU", 0.0), sum(short.values())


def waiting_line(
    bundles: Sequence[Mapping[str, float]],
    strategy: str,
    total: Sequence[Mapping[str, float]],
    free: Sequence[Mapping[str, float]],
    elapsed: float,
    deadline: float,
) -> str:
    """One line for people. `total`, `free`: what each node has, and has left, by resource; times in seconds.

    `waiting for resources: 2 x (1 CPU, 1 GPU) on different nodes; there are 2 x (8 CPUs, 1 GPU), free now 1 x ...:
    missing 1 GPU (12 s of 600 s)`
    """
    return f"waiting for resources: {_state(bundles, strategy, total, free)} ({elapsed:.0f} s of {deadline:g} s)"


def waited_too_long(
    bundles: Sequence[Mapping[str, float]],
    strategy: str,
    total: Sequence[Mapping[str, float]],
    free: Sequence[Mapping[str, float]],
    deadline: float,
) -> UserError:
    """The error when the deadline has passed: the same, and what can be done."""
    state = _state(bundles, strategy, total, free)
    if missing(bundles, strategy, total):
        remedy = "add nodes, or lower the demand (resources.cpus_per_match, .gpus_per_match, .workers, .placement)"
    else:
        remedy = "others hold them: wait for them to end, or raise resources.wait_seconds"
    return UserError(f"resources.wait_seconds: not there after {deadline:g} s: {state}; {remedy}")


def _state(
    bundles: Sequence[Mapping[str, float]],
    strategy: str,
    total: Sequence[Mapping[str, float]],
    free: Sequence[Mapping[str, float]],
) -> str:
    now, never = missing(bundles, strategy, free), missing(bundles, strategy, total)
    if never:
        lack = f"missing {now or never} (no node is large enough, or there are too few)"
    elif now:
        lack = f"missing {now}"
    elif any(amount % 1 > 0 for node in free for name, amount in node.items() if name == "GPU"):
        lack = "missing a whole GPU: parts of several are free"
    else:
        lack = "missing nothing: being reserved"
    busy = "" if list(free) == list(total) else f", free now {kinds(free)}"
    return f"{demand(bundles, strategy)}; there are {kinds(total)}{busy}: {lack}"
