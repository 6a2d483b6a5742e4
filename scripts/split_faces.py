"""Which synthetic face serves what: packaged sample, training of the editor, training of the judge. Disjoint for ever.

    python scripts/split_faces.py

The split depends on the face's number alone, so that no later change of labels or filters can move a face from a
training set into the sample: of every ten numbers five are the sample's, three the editor's, two the judge's. Reads
`.cache/synthetic_labels.parquet`, leaves out ambiguous labels and `scripts/excluded_faces.txt`, writes
`.cache/synthetic_splits.parquet` (id, split, Black_Hair, Blond_Hair, Brown_Hair, Male).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sample_photos import ATTRIBUTES, CACHE, ROOT

import pyarrow as pa
import pyarrow.parquet as pq

SPLITS = (*["sample"] * 5, *["editor"] * 3, *["judge"] * 2)
SURE = {"sample": (0.6, 0.8), "editor": (0.45, 0.65), "judge": (0.5, 0.7)}
"""Least probability of the hair colour, and of the sex, by split: the sample's labels must be right, training wants many."""


def split_of(face: str) -> str:
    """The use of a face, by its six-digit number."""
    return SPLITS[int(face) % len(SPLITS)]


def excluded() -> set[str]:
    """Numbers in scripts/excluded_faces.txt (children, broken pictures); none when the list is not there yet."""
    path: Path = ROOT / "scripts" / "excluded_faces.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return {line.split()[0].zfill(6) for line in lines if line.strip() and not line.startswith("#")}


def main() -> None:
    """See the module."""
    table = pq.read_table(CACHE / "synthetic_labels.parquet")
    hair = np.stack([table[f"p_{name}"].to_numpy() for name in ("black", "blond", "brown")], 1)
    male = table["p_male"].to_numpy()
    left_out = excluded()
    kept = []
    for k, face in enumerate(table["id"].to_pylist()):
        hair_sure, male_sure = SURE[split_of(face)]
        if hair[k].max() >= hair_sure and max(male[k], 1 - male[k]) >= male_sure and face not in left_out:
            kept.append(k)
    labels = np.concatenate([np.eye(3)[hair.argmax(1)], (male > 0.5)[:, None]], 1).astype(np.int8)[kept]
    ids = [table["id"][k].as_py() for k in kept]
    columns = {"id": ids, "split": [split_of(face) for face in ids]}
    columns |= {name: labels[:, a] for a, name in enumerate(ATTRIBUTES)}
    pq.write_table(pa.table(columns), CACHE / "synthetic_splits.parquet")
    for name in sorted(set(SPLITS)):
        print(name, columns["split"].count(name))


if __name__ == "__main__":
    main()
