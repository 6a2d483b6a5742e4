"""A cluster in a few characters, for plans on paper: `2x8gpu`, `2x8gpu:96cpu`, `1x16cpu + 4x8gpu:128cpu`.

    cluster = nodes ("+" nodes)*
    nodes   = [COUNT "x"] amount (":" amount)*      COUNT nodes that are alike, 1 where it says none
    amount  = NUMBER ("cpu" | "gpu")

A node with GPUs of which no CPUs are said has 8 per GPU.
"""

from __future__ import annotations

import re

from tsdf_ray.errors import UserError
from tsdf_ray.game.plan import Supply

CPUS_PER_GPU = 8
MOST_NODES = 10_000
EXAMPLES = "2x8gpu, 2x8gpu:96cpu, 1x16cpu + 4x8gpu:128cpu"


def parse_cluster(text: str) -> Supply:
    """The supply that `text` describes. Raises UserError naming the part that is not understood."""
    nodes: list[tuple[float, float]] = []
    for part in text.split("+"):
        nodes += _nodes(part.strip())
        if len(nodes) > MOST_NODES:
            raise UserError(f"--cluster {text}: more than {MOST_NODES} nodes")
    return Supply(sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes), tuple(nodes))


def _nodes(part: str) -> list[tuple[float, float]]:
    before, _, rest = part.lower().rpartition("x")
    count = before.strip()
    if (count or rest != part.lower()) and not re.fullmatch(r"[1-9]\d{0,5}", count):
        raise _not_understood(part, f"{count!r} is no number of nodes")
    found: dict[str, float] = {}
    for amount in rest.split(":"):
        match = re.fullmatch(r"\s*(\d{1,5})\s*(cpu|gpu)s?\s*", amount)
        if match is None:
            raise _not_understood(part, f"{amount!r} is no amount")
        kind = match[2]
        if kind in found:
            raise _not_understood(part, f"{kind} is said twice")
        found[kind] = float(match[1])
    gpus = found.get("gpu", 0.0)
    cpus = found.get("cpu", CPUS_PER_GPU * gpus)
    if not cpus:
        raise _not_understood(part, "a node needs CPUs")
    return [(cpus, gpus)] * min(int(count or 1), MOST_NODES + 1)


def _not_understood(part: str, why: str) -> UserError:
    return UserError(f"--cluster: {part!r}: {why}; write it like {EXAMPLES}")
