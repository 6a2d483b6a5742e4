"""Who sits where: a table of machines and wishes, refusals by key, and what holds for every plan."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from tsdf_ray.errors import UserError
from tsdf_ray.game.packing import lay, take
from tsdf_ray.game.plan import ROLES, Plan, Supply, plan
from tsdf_ray.game.sharing import idle, items
from tsdf_ray.scenario import Scenario

QUICKSTART = Scenario.load("quickstart").model_dump(mode="json")


def scenario(seeds: int = 25, micro_batch: int | None = 1, **resources: Any) -> Scenario:
    """Four pairs; a hundred matches."""
    content = {key: value for key, value in resources.items() if value is not None}
    changes = {"seeds": list(range(seeds)), "resources": content, "micro_batch": micro_batch}
    return Scenario.model_validate(QUICKSTART | changes)


def cluster(*nodes: tuple[float, float]) -> Supply:
    return Supply(sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes), nodes)


def group(defender: int = 1, attacker: int = 1, evaluator: int = 1) -> dict[str, int]:
    return {"defender": defender, "attacker": attacker, "evaluator": evaluator}


LAPTOP, BOX = cluster((2, 0)), cluster((32, 8))
TWO = cluster((32, 8), (32, 8))
HEAD = cluster((64, 0), (32, 8), (32, 8))
MIXED = cluster((16, 4), (8, 1), (64, 0))
SPREAD = "spread"
# supply | cpus, gpus of a match, workers, placement | bundles, strategy, matches side by side
TABLE: list[tuple[Any, ...]] = [
    (LAPTOP, 1, 0, group(), None, [(1, 0)], "PACK", 2),
    (LAPTOP, 2, 0, group(2, 2), None, [(1, 0)] * 2, "STRICT_PACK", 1),
    (cluster((8, 1)), 1, 1, group(), None, [(1, 1)], "PACK", 1),
    (cluster((8, 1)), 1, 0.25, group(), None, [(1, 0.25)], "PACK", 4),
    (BOX, 1, 1, group(), None, [(1, 1)], "PACK", 8),
    (BOX, 2, 2, group(), None, [(1, 1)] * 2, "PACK", 4),
    (BOX, 3, 5, group(), None, [(1, 1)] * 3, "PACK", 2),  # five are more than three workers use
    (TWO, 8, 4, group(4, 4), None, [(2, 1)] * 4, "STRICT_PACK", 4),
    (TWO, 9, 3, group(3, 3), None, [(3, 1)] * 3, "STRICT_PACK", 4),  # two GPUs of each node are left
    (TWO, 8, 8, group(8, 8), None, [(1, 1)] * 8, "STRICT_PACK", 2),
    (TWO, 16, 16, group(16, 8), None, [(1, 1)] * 16, "PACK", 1),  # larger than a node
    (TWO, 8, 8, group(4, 4), None, [(1, 1)] * 8, "STRICT_PACK", 2),  # no turns
    (HEAD, 32, 8, group(8, 8), None, [(4, 1)] * 8, "STRICT_PACK", 2),  # the head's CPUs are of no use
    (MIXED, 1, 1, group(), None, [(1, 1)], "PACK", 5),
    (MIXED, 8, 4, group(4, 4), None, [(2, 1)] * 4, "STRICT_PACK", 1),
    (MIXED, 5, 5, group(5, 5), None, [(1, 1)] * 5, "PACK", 1),
    (TWO, 2, 1, group(), SPREAD, [(1, 0.5)] * 2, "STRICT_SPREAD", 16),
    (TWO, 2, 2, group(), SPREAD, [(1, 1)] * 2, "STRICT_SPREAD", 8),
    (TWO, 3, 3, group(), SPREAD, [(1.5, 2), (1.5, 1)], "STRICT_SPREAD", 5),
    (TWO, 8, 8, group(4, 4), SPREAD, [(4, 4)] * 2, "STRICT_SPREAD", 2),
    (TWO, 8, 12, group(6, 6), SPREAD, [(4, 6)] * 2, "STRICT_SPREAD", 1),
    (cluster(*[(32, 8)] * 4), 32, 32, group(16, 16), SPREAD, [(8, 8)] * 4, "STRICT_SPREAD", 1),
    (cluster((4, 0), (4, 0)), 2, 0, group(), SPREAD, [(1, 0)] * 2, "STRICT_SPREAD", 4),
    (cluster((4, 0), (4, 0)), 8, 0, group(4, 4), SPREAD, [(4, 0)] * 2, "STRICT_SPREAD", 1),
]


@pytest.mark.parametrize(("supply", "cpus", "gpus", "workers", "placement", "bundles", "strategy", "parallel"), TABLE)
def test_table(
    supply: Supply,
    cpus: float,
    gpus: float,
    workers: dict[str, int],
    placement: str | None,
    bundles: list[tuple[float, float]],
    strategy: str,
    parallel: int,
) -> None:
    wants: dict[str, Any] = {"cpus_per_match": cpus, "gpus_per_match": gpus, "workers": workers, "placement": placement}
    made = plan(scenario(**wants), supply)
    assert [(bundle["CPU"], bundle.get("GPU", 0)) for bundle in made.bundles] == bundles
    assert (made.strategy, made.parallel_matches) == (strategy, parallel)
    assert {role: len(made.roles[role]) for role in ROLES} == workers


def seats(made: Plan) -> dict[str, list[tuple[int, float, float, bool]]]:
    """By role: bundle, GPU in Ray's books, share of its memory, takes turns."""
    return {r: [(w.bundle, w.gpus, w.memory, w.shares_device) for w in made.roles[r]] for r in ROLES}


def test_one_gpu_is_taken_in_turns() -> None:
    whole = seats(plan(scenario(gpus_per_match=1), BOX))
    assert whole == {
        "defender": [(0, 0.3333, 0.9, True)],
        "attacker": [(0, 0.3333, 0.675, True)],
        "evaluator": [(0, 0.3333, 0.225, True)],
    }
    quarter = seats(plan(scenario(gpus_per_match=0.25), BOX))
    assert [quarter[role][0][2] for role in ROLES] == [0.225, 0.1687, 0.0562]


def test_the_evaluator_sits_where_nobody_works_at_the_same_time() -> None:
    two = seats(plan(scenario(gpus_per_match=2), BOX))
    assert two == {
        "defender": [(0, 0.5, 0.9, True)],
        "attacker": [(1, 1.0, 1.0, False)],
        "evaluator": [(0, 0.5, 0.9, True)],
    }
    apart = seats(plan(scenario(gpus_per_match=2, placement=SPREAD), TWO))
    assert apart == two
    wide = seats(plan(scenario(gpus_per_match=3, workers=group(3, 2)), BOX))
    assert [bundle for bundle, *_ in wide["evaluator"]] == [2], "with the defender's third, no attacker there"
    own = seats(plan(scenario(gpus_per_match=3), BOX))
    assert [own[role] for role in ROLES] == [[(seat, 1.0, 1.0, False)] for seat in range(3)]


def test_a_group_has_a_gpu_per_worker() -> None:
    turns = seats(plan(scenario(gpus_per_match=4, workers=group(4, 4)), BOX))
    assert turns["defender"][:3] == [(seat, 0.5, 0.9, True) for seat in range(3)]
    assert turns["attacker"] == [*[(seat, 0.5, 0.9, True) for seat in range(3)], (3, 0.3333, 0.675, True)]
    assert turns["evaluator"] == [(3, 0.3333, 0.225, True)]
    apart = seats(plan(scenario(gpus_per_match=8, workers=group(4, 4), placement=SPREAD), TWO))
    assert apart["defender"] == [(0, 0.5, 0.9, True), *[(0, 1.0, 1.0, False)] * 3]
    assert apart["evaluator"] == [(0, 0.5, 0.9, True)], "two halves go to one GPU of the bundle"
    assert apart["attacker"] == [(1, 1.0, 1.0, False)] * 4


# supply, resources, micro_batch | words of the refusal
REFUSED: list[tuple[Any, ...]] = [
    (BOX, {"gpus_per_match": 2, "workers": group(4)}, 1, ["resources.workers.defender: 4", "raise it to 4"]),
    (BOX, {"gpus_per_match": 0.5, "workers": group(1, 2)}, 1, ["resources.workers.attacker: 2", "is 0.5", "to 2"]),
    (TWO, {"gpus_per_match": 1, "workers": group(1, 2), "placement": SPREAD}, 1, ["workers.attacker", "to 3"]),
    (TWO, {"gpus_per_match": 0.25, "placement": SPREAD}, 1, ["resources.gpus_per_match: 0.25", "raise it to 0.5"]),
    (TWO, {"gpus_per_match": 4, "workers": group(3, 2), "placement": SPREAD}, 1, ["gpus_per_match: 4", "to 5"]),
    (TWO, {"gpus_per_match": 4, "workers": group(2, 2, 2), "placement": SPREAD}, 1, ["workers.evaluator", "to 6"]),
    (
        LAPTOP,
        {"placement": SPREAD},
        1,
        ["resources.placement: a match needs 2 x (0.5 CPU) on different", "1 node with"],
    ),
    (BOX, {"gpus_per_match": 2, "placement": SPREAD}, 1, ["resources.placement", "1 x (32 CPUs, 8 GPUs)"]),
    (
        cluster((64, 0), (1, 1)),
        {"cpus_per_match": 2, "gpus_per_match": 1},
        1,
        ["resources.cpus_per_match: a match needs 1 x (2 CPUs, 1 GPU)", "1 x (64 CPUs, 0 GPUs)", "missing 1 CPU"],
    ),
    (cluster((4, 0), (4, 0)), {"cpus_per_match": 8}, 1, ["cpus_per_match", "1 x (8 CPUs)", "missing 4 CPUs"]),
    (LAPTOP, {"workers": group(2)}, None, ["resources.workers.defender: 2", "set micro_batch"]),
    (LAPTOP, {"workers": group(1, 2)}, None, ["resources.workers.attacker: 2", "set micro_batch"]),
    (LAPTOP, {"workers": group(1, 2)}, 8, ["resources.workers.attacker: 2", "below retrain.train.batch"]),
]


@pytest.mark.parametrize(("supply", "resources", "micro_batch", "words"), REFUSED)
def test_what_cannot_be_is_refused(
    supply: Supply, resources: dict[str, Any], micro_batch: int | None, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        plan(scenario(micro_batch=micro_batch, **resources), supply)
    for word in words:
        assert word in str(caught.value)


def test_what_there_is_to_share() -> None:
    made = scenario(micro_batch=2, workers=group(3, 5, 65))
    assert [items(made, role) for role in ROLES] == [4, 4, 64]
    assert [note.split(":")[0] for note in idle(made)] == ["resources.workers.attacker", "resources.workers.evaluator"]
    ensemble = QUICKSTART | {"defenders": {"found": {"kind": "found", "generators": ["attgan-128", "stargan-128"]}}}
    content = ensemble | {"resources": {"cpus_per_match": 2, "workers": {"defender": 3}}}
    assert items(Scenario.model_validate(content), "defender") == 3
    assert plan(Scenario.model_validate(content), LAPTOP).parallel_matches == 1
    leaves = {"mtcnn": {"retrain": {"mode": "none"}}}
    idle_attacker = QUICKSTART | {"attackers": leaves, "micro_batch": 1, "resources": {"workers": {"attacker": 2}}}
    with pytest.raises(UserError, match="no attacker retrains; use one worker"):
        plan(Scenario.model_validate(idle_attacker), LAPTOP)


@settings(deadline=None, max_examples=150)
@given(
    nodes=st.lists(st.tuples(st.integers(1, 16), st.integers(0, 8)), min_size=1, max_size=5),
    cpus=st.sampled_from([0.25, 1, 2, 3, 7]),
    gpus=st.sampled_from([0, 0.25, 0.5, 1, 2, 3, 4, 8, 12]),
    workers=st.tuples(*[st.sampled_from([1, 1, 2, 3, 4])] * 3),
    placement=st.sampled_from(["colocated", "spread"]),
)
def test_every_plan_can_be_had(
    nodes: list[tuple[int, int]], cpus: float, gpus: float, workers: tuple[int, int, int], placement: str
) -> None:
    wants: dict[str, Any] = {
        "cpus_per_match": cpus,
        "gpus_per_match": gpus,
        "workers": group(*workers),
        "placement": placement,
    }
    supply = cluster(*nodes)
    try:
        made = plan(scenario(**wants), supply)
    except UserError:
        reject()
    # All slots lie on the nodes at once, and no node is given more than it has.
    left = [dict(node) for node in supply.free]
    for _ in range(made.parallel_matches):
        placed = lay(made.bundles, made.strategy, left)
        for bundle, at in zip(made.bundles, placed, strict=True):
            assert at is not None
            take(bundle, left[at])
    assert all(amount > -1e-6 for node in left for amount in node.values())
    assert sum(bundle["CPU"] for bundle in made.bundles) <= cpus + 1e-9
    assert sum(bundle.get("GPU", 0) for bundle in made.bundles) <= gpus
    everyone = [(role, worker) for role in ROLES for worker in made.roles[role]]
    for number, bundle in enumerate(made.bundles):
        inside = [(role, worker) for role, worker in everyone if worker.bundle == number]
        assert sum(worker.cpus for _, worker in inside) <= bundle["CPU"] + 1e-9
        assert sum(worker.gpus for _, worker in inside) <= bundle.get("GPU", 0) + 1e-9
        assert all(worker.gpus <= 1 for _, worker in inside), "a worker computes on one GPU"
    for role in ROLES:
        group_of = made.roles[role]
        if len(group_of) > 1 and gpus:
            shared = [worker.bundle for worker in group_of if worker.gpus < 1]
            assert len(set(shared)) == len(shared), "two ranks on one GPU"
    if gpus:
        _memory_goes_round(made)


def _memory_goes_round(made: Plan) -> None:
    """Those that work at the same time never take more than the GPUs of their bundle have; nor do turns of one."""
    for at_once in (("defender",), ("attacker", "evaluator")):
        for number, bundle in enumerate(made.bundles):
            taken = sum(w.memory for role in at_once for w in made.roles[role] if w.bundle == number)
            assert taken <= bundle["GPU"] + 1e-9
    for number in range(len(made.bundles)):
        inside = {role: [w for w in made.roles[role] if w.bundle == number and w.gpus < 1] for role in ROLES}
        turns = len(inside["defender"]) > 0 and len(inside["attacker"]) + len(inside["evaluator"]) > 0
        assert all(worker.shares_device == turns for workers in inside.values() for worker in workers)
