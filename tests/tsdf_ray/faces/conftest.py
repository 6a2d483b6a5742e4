"""Small data sets made on the fly. Photo k is one flat colour that says k, so that a mixed-up label shows."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

ATTRIBUTES = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male")


def colour(k: int) -> tuple[int, int, int]:
    return (k % 251, (7 * k + 3) % 251, 40 + k // 251)


def photo_bytes(k: int, size: tuple[int, int] = (36, 44)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour(k)).save(out, "PNG")
    return out.getvalue()


def labels_of(k: int) -> tuple[int, ...]:
    """Exactly one hair colour; gender by another period, so that no column equals another."""
    return (int(k % 3 == 0), int(k % 3 == 1), int(k % 3 == 2), int(k % 5 < 2))


@dataclass
class Celeba:
    """A data set in CelebA's layout: photo k is '00000k.jpg', two photos per identity, partition by identity."""

    root: Path
    n: int
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = [f"{k:06d}.jpg" for k in range(self.n)]
        (self.root / "img_align_celeba").mkdir(parents=True)
        for k, name in enumerate(self.names):
            self.photo(name).write_bytes(photo_bytes(k))
        self.attributes([(name, labels_of(k)) for k, name in enumerate(self.names)])
        self.write("identity_CelebA.txt", [f"{name} {100 + k // 2}" for k, name in enumerate(self.names)])
        self.write("list_eval_partition.txt", [f"{name} {self.partition(k)}" for k, name in enumerate(self.names)])

    def partition(self, k: int) -> int:
        return {0: 2, 1: 1}.get((k // 2) % 5, 0)

    def photo(self, name: str) -> Path:
        return self.root / "img_align_celeba" / name

    def write(self, table: str, lines: Sequence[str], newline: str = "\n") -> None:
        (self.root / table).write_bytes((newline.join(lines) + newline).encode())

    def attributes(self, rows: Sequence[tuple[str, tuple[int, ...]]], newline: str = "\n") -> None:
        body = [f"{name} " + " ".join(f"{2 * v - 1:2d}" for v in labels) for name, labels in rows]
        self.write("list_attr_celeba.txt", [str(len(rows)), " ".join(ATTRIBUTES) + " ", *body], newline)

    def lines(self, table: str) -> list[str]:
        return (self.root / table).read_text().splitlines()


@pytest.fixture
def celeba(tmp_path: Path) -> Celeba:
    return Celeba(tmp_path / "celeba", 60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty photos, some in a subfolder, with labels.csv."""
    root = tmp_path / "photos"
    (root / "more").mkdir(parents=True)
    rows = ["id," + ",".join(ATTRIBUTES)]
    for k in range(30):
        name = f"more/p{k:02d}.PNG" if k % 4 == 0 else f"p{k:02d}.jpg"
        (root / name).write_bytes(photo_bytes(k))
        rows.append(f"{name}," + ",".join(map(str, labels_of(k))))
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


MakeParquet = Callable[..., Path]


@pytest.fixture
def make_parquet(tmp_path: Path) -> MakeParquet:
    """Write a Parquet of `n` faces in row groups of seven; keyword arguments replace columns, None drops one."""

    def make(n: int = 60, name: str = "faces.parquet", first: int = 0, **columns: object) -> Path:
        ks = range(first, first + n)
        data: dict[str, object] = {
            "id": [f"f{k:04d}" for k in ks],
            "split": [("defender", "attacker", "evaluation")[k % 3] for k in ks],
            "image": [photo_bytes(k) for k in ks],
        }
        for a, attribute in enumerate(ATTRIBUTES):
            data[attribute] = pa.array([labels_of(k * 7)[a] for k in ks], pa.int8())
        data |= columns
        table = pa.table({key: value for key, value in data.items() if value is not None})
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=7)
        return path

    return make


@pytest.fixture
def colour_of() -> Callable[[np.ndarray], tuple[int, ...]]:
    """The colour of a flat photo uint8 [3, S, S]; fails when it is not flat."""

    def read(pixels: np.ndarray) -> tuple[int, ...]:
        assert (pixels == pixels[:, :1, :1]).all()
        return tuple(int(v) for v in pixels[:, 0, 0])

    return read
