"""Runs of hundreds of pairs: some are drawn, all stand in one table, and memory holds the rows of those drawn alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from tsdf_ray.report.answer import Answer, Cell
from tsdf_ray.report.data import DRAWN, Key, Run, Value, pooled

DEFENDERS, ATTACKERS = 6, 4
"""How many of each are drawn then: as many defenders as there are colours."""


@dataclass(frozen=True)
class PairLine:
    """One pair in the table of all."""

    pair: Key
    verdict: str
    protection: Value
    edits: Value
    usable: Value
    rounds: int


def drawn(run: Run, strength: Sequence[str]) -> Run:
    """The run, or what is drawn of one with many pairs; `strength`: its defenders, the strongest first."""
    if len(run.pairs) <= DRAWN:
        return run
    defenders = strength[:DEFENDERS]
    harm = {a: _mean(run, [p for p in run.pairs if p[1] == a and p[0] in defenders]) for a in run.attackers}
    attackers = sorted(harm, key=lambda a: harm[a])[:ATTACKERS]
    names = ["/".join(pair) for pair in run.pairs if pair[0] in defenders and pair[1] in attackers]
    tables = [_table_of(table, defenders) for table in run.summary.get("transfer") or ()]
    summary = run.summary | {
        "pairs": {name: run.summary["pairs"][name] for name in names},
        "transfer": [table for table in tables if table["attacker"] in attackers and table["rows"]],
    }
    chosen = (
        pc.field("seed").is_null() & pc.field("defender").isin(list(defenders)) & pc.field("attacker").isin(attackers)
    )
    path = run.root / "tables" / "metrics.parquet"
    return replace(run, summary=summary, rows=pooled(pq.read_table(path, filters=chosen)))


def _table_of(table: dict[str, Any], defenders: Sequence[str]) -> dict[str, Any]:
    return table | {"rows": {name: row for name, row in table["rows"].items() if name in defenders}}


def _mean(run: Run, pairs: list[Key]) -> float:
    known = [value for pair in pairs if (value := run.last(pair).value) is not None]
    return sum(known) / len(known) if known else 1.0


def lines(run: Run, verdicts: dict[Key, str]) -> tuple[PairLine, ...]:
    """All pairs of a run of which some are drawn; none when all are."""
    if len(run.pairs) <= DRAWN:
        return ()
    return tuple(
        PairLine(
            pair,
            verdicts[pair],
            run.last(pair),
            run.last(pair, "edit_success_after"),
            run.last(pair, "yield"),
            len(run.over_rounds(pair, "protection")),
        )
        for pair in run.pairs
    )


@dataclass(frozen=True)
class Grid:
    """Every defender against every attacker."""

    attackers: tuple[str, ...]
    """Those that harm most first."""
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    """Defender, the strongest first, and its cell per attacker: None where they did not meet."""


def grid(run: Run, found: Answer) -> Grid:
    """All pairs of a run as one table."""
    harm = {a: _mean(run, [p for p in run.pairs if p[1] == a]) for a in run.attackers}
    attackers = tuple(sorted(harm, key=lambda a: harm[a]))
    return Grid(attackers, tuple((d, tuple(found.cells.get((d, a)) for a in attackers)) for d in found.ranked))
