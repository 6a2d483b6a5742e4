"""Which synthetic face serves what: packaged sample, training of the editor, training of the judge. Disjoint for ever.

    python scripts/split_faces.py

The split depends on the face's number alone, so that no later change of labels or filters can move a face from a
training set into the sample: of every ten numbers below 7,000 five are the sample's, three the editor's, two the
judge's; from 7,000 on all are the editor's. Reads
`.cache/synthetic_labels.parquet` and what was set right by eye (`corrected_labels.txt`), leaves out ambiguous labels
and `excluded_faces.txt`; writes `.cache/synthetic_splits.parquet` (id, split, and a 0/1 column per attribute).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from face_lists import ATTRIBUTES, CACHE, SPLITS, corrected, excluded, split_of

SURE = {"sample": (0.6, 0.8), "editor": (0.45, 0.65), "judge": (0.5, 0.7)}
"""Least probability of the hair colour, and of the sex: the sample's labels must be right, training wants many."""


def main() -> None:
    """See the module."""
    table = pq.read_table(CACHE / "synthetic_labels.parquet")
    hair = np.stack([table[f"p_{name}"].to_numpy() for name in ("black", "blond", "brown")], 1)
    male = table["p_male"].to_numpy()
    left_out, by_eye = excluded(), corrected()
    labels: dict[str, tuple[int, ...]] = {}
    for k, face in enumerate(table["id"].to_pylist()):
        hair_sure, male_sure = SURE[split_of(face)]
        if face in left_out:
            continue
        if face in by_eye:
            labels[face] = by_eye[face]
        elif hair[k].max() >= hair_sure and max(male[k], 1 - male[k]) >= male_sure:
            labels[face] = (*(int(colour == hair[k].argmax()) for colour in range(3)), int(male[k] > 0.5))
    ids = list(labels)
    columns: dict[str, object] = {"id": ids, "split": [split_of(face) for face in ids]}
    columns |= {name: np.array([labels[face][a] for face in ids], dtype=np.int8) for a, name in enumerate(ATTRIBUTES)}
    pq.write_table(pa.table(columns), CACHE / "synthetic_splits.parquet")
    for name in sorted(set(SPLITS)):
        print(name, sum(split_of(face) == name for face in ids))


if __name__ == "__main__":
    main()
