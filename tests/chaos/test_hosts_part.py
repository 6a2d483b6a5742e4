"""Roles on several hosts, each with an address of its own, whose cables are pulled, slow and lossy.

"Hosts" are network namespaces; the tests are skipped where these cannot be made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cluster_script import APART, found_by, why_not_apart
from saboteur import same_result, small_game

from tsdf_ray import api

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(why_not_apart()), reason=why_not_apart()),
]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The match of the groups, with one worker for each role, in process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert api.play(small_game("micro_batch=2"), out, executor="inprocess", report=False).status == "complete"
    return out


def on_hosts(case: str, folder: Path) -> dict[str, Any]:
    """What a case printed; it has come to its end."""
    found = found_by("hosts_part.py", case, folder, APART)
    assert found["status"] == "complete", found
    return found


def places(found: dict[str, Any], role: str) -> list[str]:
    """Hosts of a role's workers, in the order in which they were placed."""
    return [host for name, _, host, _ in found["placed"] if name == role]


def mended(found: dict[str, Any]) -> bool:
    """Was a role built anew?"""
    return any("built anew" in note for note in found["notes"])


@pytest.mark.slow
def test_a_group_of_two_hosts(tmp_path: Path, alone: Path) -> None:
    """They meet and add up across hosts, though each host's own name is 127.0.0.1."""
    found = on_hosts("group", tmp_path)
    assert len(set(places(found, "attacker"))) == 2
    assert not mended(found)
    same_result(tmp_path / "run", alone)


@pytest.mark.slow
def test_roles_on_different_hosts(tmp_path: Path, unbroken: Path) -> None:
    """Defender and attacker."""
    found = on_hosts("apart", tmp_path)
    assert set(places(found, "defender")).isdisjoint(places(found, "attacker"))
    assert not mended(found)
    same_result(tmp_path / "run", unbroken)


@pytest.mark.slow
def test_a_pulled_cable(tmp_path: Path, unbroken: Path) -> None:
    """The attacker's, for good as far as Ray can tell: it moves. Back in the net, what was cut off ends unheard."""
    found = on_hosts("pulled", tmp_path)
    assert found["cut"]
    assert found["back_during_match"]
    assert found["noticed"] is not None
    first, second = places(found, "attacker")
    assert found["struck"] == first != second
    assert first not in found["alive"]
    assert found["left_over_ended"], found
    same_result(tmp_path / "run", unbroken)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "like"), [("short", "unbroken"), ("group-short", "alone")])
def test_a_cable_that_is_soon_put_back(case: str, like: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Sooner than a node is given up; of the attacker, or of one of a group in the middle of what the two add up."""
    undisturbed: Path = request.getfixturevalue(like)
    found = on_hosts(case, tmp_path)
    assert found["cut"]
    assert found["back_during_match"]
    assert len(found["alive"]) == 3
    same_result(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_a_slow_and_lossy_network(tmp_path: Path, unbroken: Path) -> None:
    """Between the head, where the driver is, and all others: 50 ms each way, 1.5 % lost. Nobody is taken for dead."""
    found = on_hosts("slow", tmp_path)
    before, after = found["round_trip"]
    assert before < 0.05 < 0.1 <= after
    assert found["frames_lost"] > 0
    assert len(found["alive"]) == 3
    assert not mended(found)
    same_result(tmp_path / "run", unbroken)


@pytest.mark.slow
def test_one_of_a_group_loses_its_cable(tmp_path: Path, alone: Path) -> None:
    """The other does not wait for it for ever: the group is built anew as a whole."""
    found = on_hosts("group-pulled", tmp_path)
    assert found["cut"]
    pids = {pid for role, _, _, pid in found["placed"] if role == "attacker"}
    assert len(pids) == 4, "both workers were replaced"
    assert found["struck"] not in places(found, "attacker")[2:]
    assert found["left_over_ended"], found
    same_result(tmp_path / "run", alone)


@pytest.mark.slow
def test_a_group_whose_hosts_do_not_reach_each_other(tmp_path: Path, alone: Path) -> None:
    """The head reaches both, so only the step's time limit tells; then the two reach each other again."""
    found = on_hosts("group-parted", tmp_path)
    assert any("no answer in time" in note for note in found["notes"])
    assert len(found["alive"]) == 3
    same_result(tmp_path / "run", alone)


@pytest.mark.slow
def test_a_group_that_cannot_meet(tmp_path: Path, alone: Path) -> None:
    """Its hosts do not reach each other from the start: that is said, and none of the two works alone."""
    found = on_hosts("group-unmet", tmp_path)
    assert any("could not meet" in note for note in found["notes"])
    assert len({pid for role, _, _, pid in found["placed"] if role == "attacker"}) == 2
    same_result(tmp_path / "run", alone)
