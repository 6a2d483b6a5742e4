"""The tables of docs/results.md from a run's summary.json, as Markdown.

    python scripts/results_table.py RUN [--metrics protection yield] [--transfer protection duq] [--attackers]

Without options: every pair with its edits, interruption, protection and yield by round, the last one of protection with
its 95 % interval. `--transfer` prints the transfer table of a metric (white-box cells in bold). `--attackers` puts the
attackers into columns and shows the last round of the first metric.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

METRICS = (
    "hair_edit_success_before",
    "hair_edit_success_after",
    "sr_mask_before",
    "sr_mask_after",
    "protection",
    "yield",
)
Cell = dict[str, Any]


def number(value: float | None) -> str:
    """Two decimals without the zero before the point."""
    if value is None:
        return "-"
    text = f"{value:.2f}"
    return "1" if text == "1.00" else text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def shown(cell: Cell | None, *, interval: bool) -> str:
    """A value, with its interval on request; `-` where there is none."""
    if cell is None or cell["value"] is None:
        return "-"
    bounds = f" [{number(cell['low'])}, {number(cell['high'])}]" if interval and cell["low"] is not None else ""
    return number(cell["value"]) + bounds


def line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def pairs_table(summary: dict[str, Any], metrics: list[str]) -> list[str]:
    """One row per pair; rounds side by side, the last with its interval where there is only one or it is protection."""
    rows = [line("defender", "attacker", *metrics), line(*["---"] * (2 + len(metrics)))]
    for pair, found in summary["pairs"].items():
        cells = []
        for metric in metrics:
            series = found[metric]
            wide = metric == "protection" or len(series) == 1
            cells.append(" ".join(shown(c, interval=wide and c is series[-1]) for c in series))
        rows.append(line(*pair.split("/"), *cells))
    return rows


def attackers_table(summary: dict[str, Any], metric: str) -> list[str]:
    """Defenders by attackers: the last round."""
    defenders, attackers = (list(dict.fromkeys(p.split("/")[side] for p in summary["pairs"])) for side in (0, 1))
    rows = [line("defender", *attackers), line(*["---"] * (1 + len(attackers)))]
    for defender in defenders:
        cells = [shown(summary["pairs"][f"{defender}/{a}"][metric][-1], interval=True) for a in attackers]
        rows.append(line(defender, *cells))
    return rows


def transfer_tables(summary: dict[str, Any], metric: str) -> list[str]:
    """Defenders by models, white-box cells in bold; one table per attacker."""
    rows: list[str] = []
    for table in (table for table in summary["transfer"] if table["metric"] == metric):
        rows += ["", f"{metric}, {table['of']}, attacker {table['attacker']}:", ""]
        rows += [line("defender", *table["models"]), line(*["---"] * (1 + len(table["models"])))]
        for defender, row in table["rows"].items():
            cells = []
            for model in table["models"]:
                cell = row["cells"].get(model)
                text = shown(cell, interval=True)
                cells.append(f"**{text}**" if cell is not None and cell["white_box"] else text)
            rows.append(line(defender, *cells))
    return rows


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--metrics", nargs="+", default=list(METRICS))
    parser.add_argument("--transfer", nargs="+", default=[])
    parser.add_argument("--attackers", action="store_true")
    args = parser.parse_args()
    summary = json.loads((args.run / "summary.json").read_text())
    print(f"{summary['scenario']}: {summary['seconds']:.0f} s, seeds {summary['seeds']}\n")
    table = attackers_table(summary, args.metrics[0]) if args.attackers else pairs_table(summary, args.metrics)
    print("\n".join(table))
    for metric in args.transfer:
        print("\n".join(transfer_tables(summary, metric)))


if __name__ == "__main__":
    main()
