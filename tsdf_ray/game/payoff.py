"""The payoff table: protection after the last round, every defender against every attacker."""

from __future__ import annotations

from typing import Any


def payoff_table(summary: dict[str, Any]) -> dict[str, dict[str, dict[str, Any] | None]]:
    """`summary["pairs"]` -> {defender: {attacker: {value, low, high, n} after the last round, or None}}."""
    table: dict[str, dict[str, dict[str, Any] | None]] = {}
    for pair, metrics in summary["pairs"].items():
        defender, attacker = pair.split("/")
        rounds = [cell for cell in metrics.get("protection", []) if cell is not None]
        table.setdefault(defender, {})[attacker] = rounds[-1] if rounds else None
    return table


def worst_case(row: dict[str, dict[str, Any] | None]) -> tuple[str, dict[str, Any]] | None:
    """The attacker against whom a defender protects least, and the cell; None when nothing was measured."""
    known = [(attacker, cell) for attacker, cell in row.items() if cell and cell.get("value") is not None]
    return min(known, key=lambda item: item[1]["value"], default=None)
