"""The end of a run: parts merged into tables, tables into a summary.

In pieces: memory holds the rows of one pair of players at a time, and one part's file is open at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tsdf_ray.metrics import aggregate, summarise
from tsdf_ray.metrics.bootstrap import Draws
from tsdf_ray.metrics.transfer import needed, transfer
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.atomic import whole_file, write_json
from tsdf_ray.store.manifest import Entry, Manifest, damage
from tsdf_ray.store.rundir import RunDirectory

GROUP_ROWS = 1 << 17
"""Rows of a row group: parts are small, and a group of its own for each would make the file's footer large."""
Pair = tuple[str, str]


@dataclass(frozen=True)
class _OnePair:
    """A race of one pair, for `summarise`."""

    pairs: list[Pair]
    rounds: int


def finish_run(run: RunDirectory, scenario: Scenario, manifest: Manifest, status: str, seconds: float) -> None:
    """Write tables/ and summary.json from the finished rounds; `status` and `seconds` as run.json will say.

    The tables depend on the finished rounds alone, not on when or where they were played. Rounds from one whose part is
    damaged are left out; their match then has failed, and so has the run.
    """
    rounds, damaged = _good_rounds(run, scenario, manifest)
    failed = dict(run.info().get("failed", {})) | damaged
    status = "failed" if damaged and status == "complete" else status
    pairs: dict[str, dict[str, Any]] = {}
    between: list[dict[str, Any]] = []
    if rounds:
        tables = run.root / "tables"
        merge([run.root / entry.file("parts") for entry in rounds], tables / "images.parquet")
        pairs, between = _measure(run.root, rounds, scenario, tables / "metrics.parquet")
    head = {"schema": 1, "scenario": scenario.name, "status": status, "seconds": round(seconds, 1)}
    head |= {"seeds": list(scenario.seeds), "failed": failed}
    write_json(run.root / "summary.json", head | {"pairs": pairs, "transfer": between})
    run.update(status=status, seconds=seconds, failed=failed)


def _good_rounds(run: RunDirectory, scenario: Scenario, manifest: Manifest) -> tuple[list[Entry], dict[str, str]]:
    """Finished rounds in the order of the scenario, whatever order the matches ended in; and match -> what is damaged.

    A part was written whole and read by nobody since: that it still is what was written shows here.
    """
    rounds: list[Entry] = []
    damaged: dict[str, str] = {}
    for seed in scenario.seeds:
        for defender, attacker in scenario.pairs:
            for entry in manifest.of(f"{defender}-vs-{attacker}-s{seed}"):
                name = entry.file("parts")
                if what := damage(run.root, entry, name):
                    text = f"{run.root / name}: {what}; `tsdf-ray resume {run.place}` plays the round again"
                    damaged[entry.match] = text
                    run.log({"event": "damaged", "match": entry.match, "files": [name], "note": text})
                    break
                rounds.append(entry)
    return rounds, damaged


def _measure(
    root: Path, rounds: list[Entry], scenario: Scenario, target: Path
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Write metrics.parquet, pair after pair; the pairs and the transfer tables of summary.json."""
    parts: dict[Pair, list[Path]] = {}
    for entry in rounds:
        parts.setdefault((entry.defender, entry.attacker), []).append(root / entry.file("parts"))
    found: dict[str, dict[str, Any]] = {}
    between: list[pa.Table] = []
    draws = Draws()

    def measured() -> Iterator[pa.Table]:
        for pair, paths in parts.items():
            rows = pa.concat_tables(_read(paths))
            metrics = aggregate(rows, scenario.evaluation.resamples, scenario.seeds[0], draws)
            found.update(summarise(metrics, _OnePair([pair], scenario.rounds)))
            between.append(needed(metrics))
            yield metrics

    _write(measured(), target)
    order = ["/".join(pair) for pair in scenario.pairs]
    pairs = {name: found[name] for name in order if name in found}
    return pairs, transfer(pa.concat_tables(between), scenario.model_dump(mode="json"))


def merge(parts: list[Path], target: Path) -> None:
    """Concatenate Parquet files into one, a few parts at a time."""
    _write(_read(parts), target)


def _read(parts: Iterable[Path]) -> Iterator[pa.Table]:
    """One table after another, with the columns of the first."""
    schema: pa.Schema | None = None
    for part in parts:
        with pq.ParquetFile(part) as file:  # several times as fast as read_table, which looks for datasets
            table = file.read()
        schema = table.schema if schema is None else schema
        yield table.cast(schema)


def _write(tables: Iterable[pa.Table], target: Path) -> None:
    """One Parquet file of many tables alike, whole; holds a row group in memory."""
    waiting: list[pa.Table] = []
    rows = 0
    writer: pq.ParquetWriter | None = None
    with whole_file(target) as temporary:
        try:
            for table in tables:
                if writer is None:
                    writer = pq.ParquetWriter(temporary, table.schema, compression="zstd")
                waiting.append(table)
                rows += table.num_rows
                if rows >= GROUP_ROWS:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting, rows = [], 0
            assert writer is not None, "there is a table"
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
        finally:
            if writer is not None:
                writer.close()
