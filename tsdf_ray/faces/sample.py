"""The packaged sample: 128 x 128 faces of people who do not exist, with their own splits (see its data card)."""

from __future__ import annotations

from pathlib import Path

from tsdf_ray.errors import UserError
from tsdf_ray.faces.parquet import ParquetSource
from tsdf_ray.faces.source import Tally

SAMPLE = Path(__file__).resolve().parents[1] / "assets" / "sample" / "faces-128.parquet"


def sample_source(tally: Tally) -> ParquetSource:
    """The sample as a source. Raises UserError when this installation lacks it."""
    if not SAMPLE.is_file():
        raise UserError(
            f"{SAMPLE}: the packaged sample is missing; install tsdf-ray again, or choose another faces.source"
        )
    return ParquetSource(SAMPLE, tally)
