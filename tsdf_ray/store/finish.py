"""The end of a run: parts merged into tables, tables into a summary."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tsdf_ray.metrics import aggregate, summarise
from tsdf_ray.metrics.transfer import transfer
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.atomic import whole_file, write_json, write_table
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.rundir import RunDirectory


def finish_run(run: RunDirectory, scenario: Scenario, manifest: Manifest, status: str, seconds: float) -> None:
    """Write tables/ and summary.json from the finished rounds; `status` and `seconds` as run.json will say.

    The tables depend on the finished rounds alone, not on when or where they were played.
    """
    parts = [run.root / name for name in _parts(manifest, scenario)]
    tables = run.root / "tables"
    if parts:
        merge(parts, tables / "images.parquet")
        metrics = aggregate(pq.read_table(tables / "images.parquet"), scenario.evaluation.resamples, scenario.seeds[0])
        write_table(tables / "metrics.parquet", metrics)
    else:
        metrics = None
    head = {"schema": 1, "scenario": scenario.name, "status": status, "seconds": round(seconds, 1)}
    head |= {"seeds": list(scenario.seeds), "failed": run.info().get("failed", {})}
    pairs = summarise(metrics, scenario) if metrics is not None else {}
    tables_between = transfer(metrics, scenario.model_dump(mode="json")) if metrics is not None else []
    write_json(run.root / "summary.json", head | {"pairs": pairs, "transfer": tables_between})
    run.update(status=status, seconds=seconds)


def _parts(manifest: Manifest, scenario: Scenario) -> Iterable[str]:
    """Part files in the order of the scenario, whatever order the matches ended in."""
    for seed in scenario.seeds:
        for defender, attacker in scenario.pairs:
            for entry in manifest.of(f"{defender}-vs-{attacker}-s{seed}"):
                yield next(name for name in entry.files if name.startswith("parts/"))


def merge(parts: list[Path], target: Path) -> None:
    """Concatenate Parquet files into one, a part at a time."""
    with whole_file(target) as temporary:
        schema: pa.Schema = pq.read_schema(parts[0])
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for part in parts:
                writer.write_table(pq.read_table(part).cast(schema))
