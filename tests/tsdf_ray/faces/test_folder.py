"""A plain folder, with and without labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tsdf_ray.errors import UserError
from tsdf_ray.faces import BadPhoto, Counts, FacesConfig, iter_faces, load_splits

Colour = Callable[[np.ndarray], tuple[int, ...]]
COUNTS = Counts(defender=6, attacker=8, evaluation=5)


def config(folder: Path, **changes: object) -> FacesConfig:
    return FacesConfig(**({"source": "folder", "path": folder, "size": 32, "counts": COUNTS} | changes))


def number(name: str) -> int:
    return int(name.removeprefix("more/")[1:3])


def test_labels_go_to_the_photos_they_name(folder: Path, colour_of: Colour) -> None:
    splits = load_splits(config(folder), 1)
    ids = splits.defender.ids + splits.attacker.ids + splits.evaluation.ids
    assert len(set(ids)) == 19
    for photos in (splits.defender, splits.attacker, splits.evaluation):
        for b, name in enumerate(photos.ids):
            k = number(name)
            assert colour_of(photos.pixels_BCHW[b])[0] == k
            assert tuple(photos.labels_BA[b]) == (k % 3 == 0, k % 3 == 1, k % 3 == 2, k % 5 < 2)


def test_without_labels_it_works_when_none_are_asked_for(folder: Path) -> None:
    (folder / "labels.csv").unlink()
    splits = load_splits(config(folder, attributes=()), 0)
    assert splits.attacker.labels_BA.shape == (8, 0)
    assert len(list(iter_faces(config(folder, attributes=())))) == 30
    with pytest.raises(UserError, match=r"no labels\.csv.*unknown attribute 'Black_Hair'"):
        load_splits(config(folder), 0)


def test_identity_and_split_columns_are_obeyed(folder: Path) -> None:
    lines = (folder / "labels.csv").read_text().splitlines()
    rows = [
        f"{line},{('defender', 'attacker', 'evaluation')[(k // 2) % 3]},{k // 2}" for k, line in enumerate(lines[1:])
    ]
    (folder / "labels.csv").write_text("\n".join([lines[0] + ",split,identity", *rows]))
    splits = load_splits(config(folder), 0)
    for part, photos in enumerate((splits.defender, splits.attacker, splits.evaluation)):
        assert {(number(name) // 2) % 3 for name in photos.ids} == {part}
    (folder / "labels.csv").write_text("\n".join([lines[0] + ",split,identity", *rows[:-1], rows[-1][:-2] + "0"]))
    with pytest.raises(UserError, match="both show identity 0"):
        load_splits(config(folder), 0)


def test_an_identity_column_alone_keeps_people_together(folder: Path) -> None:
    lines = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text(
        "\n".join([lines[0] + ",identity", *(f"{line},{k // 3}" for k, line in enumerate(lines[1:]))])
    )
    splits = load_splits(config(folder, counts=Counts(defender=5, attacker=7, evaluation=4)), 0)
    people = [{number(n) // 3 for n in s.ids} for s in (splits.defender, splits.attacker, splits.evaluation)]
    assert not (people[0] & people[1])
    assert not (people[0] & people[2])
    assert not (people[1] & people[2])


def test_celebas_attribute_table_serves_too(folder: Path) -> None:
    (folder / "labels.csv").unlink()
    names = [f"p{k:02d}.jpg" for k in range(30) if k % 4]
    for k in range(0, 30, 4):
        (folder / f"more/p{k:02d}.PNG").unlink()
    rows = [f"{name} {'1' if number(name) % 2 else '-1'}" for name in names]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(len(names)), "Smiling", *rows]) + "\n")
    photos = load_splits(config(folder), 0, ("Smiling",)).attacker
    assert [int(v) for v in photos.labels_BA[:, 0]] == [number(name) % 2 for name in photos.ids]
    (folder / "labels.csv").write_text("id,Smiling\n")
    with pytest.raises(UserError, match="remove one"):
        load_splits(config(folder), 0, ("Smiling",))


def edit(folder: Path, line: int, text: str) -> None:
    lines = (folder / "labels.csv").read_text().splitlines()
    lines[line - 1] = text
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


BAD_ROWS = {
    "no row": (lambda f: edit(f, 3, ""), r"p01\.jpg: has no row in the label file"),
    "no photo": (lambda f: (f / "p01.jpg").unlink(), r"p01\.jpg: has labels, but is not in"),
    "too few fields": (lambda f: edit(f, 3, "p01.jpg,1,0"), r"labels\.csv, line 3: 3 fields, the header has 5"),
    "value": (lambda f: edit(f, 3, "p01.jpg,1,0,0,maybe"), r"labels\.csv, line 3: Male of p01\.jpg is 'maybe'"),
    "twice": (lambda f: edit(f, 3, "p02.jpg,1,0,0,1"), r"labels\.csv, line 4: p02\.jpg is there twice"),
    "outside": (lambda f: edit(f, 3, "../secret.jpg,1,0,0,1"), r"\.\./secret\.jpg: has labels, but is not in"),
    "no id": (lambda f: edit(f, 3, ",1,0,0,1"), r"labels\.csv, line 3: no id"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_stops_or_is_skipped_and_listed(folder: Path, case: str) -> None:
    spoil, message = BAD_ROWS[case]
    spoil(folder)
    # A photo whose row is gone is an error of its own; here the row's error is looked for.
    if case in {"too few fields", "value", "no id"}:
        (folder / "p01.jpg").unlink()
    with pytest.raises(BadPhoto, match=None if case in {"outside", "twice"} else message):
        load_splits(config(folder), 0)
    splits = load_splits(config(folder, on_bad="skip"), 0)
    import re

    assert any(re.search(message, item) for item in splits.skipped)
    assert "p01.jpg" not in splits.defender.ids + splits.attacker.ids + splits.evaluation.ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a header"),
        ("name,Male\np01.jpg,1\n", "needs a header with a column `id`"),
        ("id,Male,Male\np01.jpg,1,1\n", "no name twice"),
        ("id,Male\np01.jpg,1\n", "unknown attribute 'Black_Hair'; labelled there: Male"),
    ],
)
def test_a_bad_header_always_stops(folder: Path, text: str, message: str) -> None:
    (folder / "labels.csv").write_text(text)
    for on_bad in ("stop", "skip"):
        with pytest.raises(UserError, match=message):
            load_splits(config(folder, on_bad=on_bad), 0)


def test_a_table_that_is_not_utf8_says_so(folder: Path) -> None:
    (folder / "labels.csv").write_bytes("id,Male\nJosé.jpg,1\n".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        load_splits(config(folder), 0)


def test_excel_csv_with_crlf_and_byte_order_mark(folder: Path) -> None:
    before = load_splits(config(folder), 0).attacker.digest
    text = (folder / "labels.csv").read_text().replace("\n", "\r\n")
    (folder / "labels.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_splits(config(folder), 0).attacker.digest == before


def test_a_folder_that_is_missing_or_holds_no_photo(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for path, message in ((tmp_path / "nowhere", "is not a folder"), (tmp_path, "holds no photo")):
        with pytest.raises(UserError, match=message):
            load_splits(config(path, attributes=()), 0)


def test_a_format_we_do_not_read_is_named_not_passed_over(folder: Path) -> None:
    (folder / "labels.csv").unlink()
    for name in ("p01.jpg", "p02.jpg", "p03.jpg"):
        (folder / name).rename((folder / name).with_suffix(".gif"))
        (folder / name).with_suffix(".gif").write_bytes(b"GIF89a")
    with pytest.raises(BadPhoto, match=r"\.gif: not a JPEG"):
        list(iter_faces(config(folder, attributes=())))
