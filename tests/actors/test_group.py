"""A group of real processes over gloo: sums in the order of the items, whoever computes them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.group import GroupCrew, GroupUnmet

WORKER = Path(__file__).with_name("group_worker.py")


def group(size: int, work: str) -> list[dict[str, Any]]:
    """What each process of a group printed; {} of one that died."""

    def start(rank: int) -> subprocess.Popen[str]:
        command = [sys.executable, str(WORKER), str(rank), str(size), work]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    workers = [start(rank) for rank in range(size)]
    assert workers[0].stdout is not None
    port = workers[0].stdout.readline()
    answers = []
    for rank, worker in enumerate(workers):
        if rank:
            assert worker.stdin is not None
            worker.stdin.write(port)
            worker.stdin.flush()
    for worker in workers:
        out, _ = worker.communicate(timeout=120)
        answers.append(json.loads(out) if out.strip() else {})
    return answers


def test_three_processes_add_in_the_order_of_the_items() -> None:
    rng = torch.Generator().manual_seed(0)
    items = [torch.randn(1000, generator=rng) * 10**e for e in range(-3, 2)]
    answers = group(3, "sum")
    for count, *found in zip((5, 1, 2), *(answer["sums"] for answer in answers), strict=True):
        expected = items[0].clone()
        for item in items[1:count]:
            expected += item
        for shaped, bits in found:
            assert shaped
            assert bits == expected.view(torch.int32).tolist()
    assert all(answer["gathered"] == [{"rank": 0}, {"rank": 1}, {"rank": 2}] for answer in answers)


@pytest.mark.timeout(120)
def test_the_others_notice_that_one_died() -> None:
    answers = group(2, "die")
    assert answers[1] == {}
    assert "adding up" in answers[0]["broken"]


def test_a_meeting_place_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is given up long before a worker that is in it gives up the others."""
    monkeypatch.setattr("actors.group.REACH_SECONDS", 0.5)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        port = bound.getsockname()[1]
        with pytest.raises(GroupUnmet, match=rf"worker 1 of 2, meeting at 127.0.0.1:{port}: "):
            GroupCrew.join(1, 2, "127.0.0.1", port)


def test_two_processes_train_the_generator_that_one_trains() -> None:
    alone, *both = group(1, "train") + group(2, "train")
    assert set(alone) == {"float32", "bfloat16"}
    assert both == [alone, alone]
