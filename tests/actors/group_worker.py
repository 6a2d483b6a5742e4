"""One process of a group, for test_group.py: prints what it gets as JSON. `RANK SIZE HOST PORT WORK`."""

from __future__ import annotations

import json
import os
import sys

import torch

from actors.group import GroupBroken, GroupCrew, open_store


def main() -> None:
    rank, size, work = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    store = open_store("127.0.0.1", size) if rank == 0 else None
    if store is not None:
        print(store.port, flush=True)
        port = store.port
    else:
        port = int(sys.stdin.readline())
    crew = GroupCrew.join(rank, size, "127.0.0.1", port, store=store)
    if work == "die" and rank == size - 1:
        os._exit(9)
    rng = torch.Generator().manual_seed(0)
    items = [torch.randn(1000, generator=rng) * 10**e for e in range(-3, 2)]
    try:
        answers = []
        for count in (5, 1, 2):
            total = crew.total(count)
            for i in total.mine:
                total.add([items[i][:600].view(20, 30), items[i][600:]])
            a, b = total.sum(like=[torch.empty(20, 30), torch.empty(400)])
            answers.append([a.shape == (20, 30), torch.cat([a.flatten(), b]).view(torch.int32).tolist()])
        print(json.dumps({"sums": answers, "gathered": crew.gather({"rank": rank})}), flush=True)
    except GroupBroken as error:
        print(json.dumps({"broken": str(error)}), flush=True)


if __name__ == "__main__":
    main()
