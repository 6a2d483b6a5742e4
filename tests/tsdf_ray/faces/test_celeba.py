"""CelebA's layout: every photo gets its own labels whatever the tables look like, and bad tables name file and line."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tsdf_ray.errors import UserError
from tsdf_ray.faces import BadPhoto, Counts, FacesConfig, Splits, Tally, iter_faces, load_splits

if TYPE_CHECKING:
    from conftest import Celeba

ATTRIBUTES = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male")
Colour = Callable[[np.ndarray], tuple[int, ...]]


def config(celeba: Celeba, on_bad: str = "stop", **changes: object) -> FacesConfig:
    counts = Counts(defender=8, attacker=16, evaluation=6)
    return FacesConfig(source="celeba", path=celeba.root, size=32, counts=counts, on_bad=on_bad, **changes)


def colour(k: int) -> tuple[int, int, int]:
    return (k % 251, (7 * k + 3) % 251, 40 + k // 251)


def labels_of(k: int) -> tuple[int, ...]:
    return (int(k % 3 == 0), int(k % 3 == 1), int(k % 3 == 2), int(k % 5 < 2))


def check(splits: Splits, colour_of: Colour) -> None:
    """Every photo shows the colour and has the labels of the number in its name."""
    for photos in (splits.defender, splits.attacker, splits.evaluation):
        for b, name in enumerate(photos.ids):
            k = int(name[:6])
            assert colour_of(photos.pixels_BCHW[b]) == colour(k)
            assert tuple(photos.labels_BA[b]) == labels_of(k)


def identities(celeba: Celeba, ids: tuple[str, ...]) -> set[str]:
    table = dict(line.split() for line in celeba.lines("identity_CelebA.txt"))
    return {table[name] for name in ids}


def test_each_photo_gets_its_own_labels_and_no_person_is_in_two_splits(celeba: Celeba, colour_of: Colour) -> None:
    splits = load_splits(config(celeba), 3)
    check(splits, colour_of)
    people = [identities(celeba, s.ids) for s in (splits.defender, splits.attacker, splits.evaluation)]
    assert not (people[0] & people[1])
    assert not (people[0] & people[2])
    assert not (people[1] & people[2])
    assert all(celeba.partition(int(name[:6])) == 2 for name in splits.evaluation.ids)
    assert all(celeba.partition(int(name[:6])) == 0 for name in splits.defender.ids + splits.attacker.ids)
    assert splits.skipped == ()


def test_rows_in_any_order_change_nothing(celeba: Celeba) -> None:
    before = load_splits(config(celeba), 0)
    shuffle = random.Random(5)
    for table in ("list_attr_celeba.txt", "identity_CelebA.txt", "list_eval_partition.txt"):
        lines = celeba.lines(table)
        head, rows = (lines[:2], lines[2:]) if "attr" in table else ([], lines)
        shuffle.shuffle(rows)
        celeba.write(table, head + rows)
    after = load_splits(config(celeba), 0)
    assert [before.defender.digest, before.evaluation.digest] == [after.defender.digest, after.evaluation.digest]


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_line_endings_double_spaces_blank_lines_and_a_byte_order_mark(
    celeba: Celeba, colour_of: Colour, newline: str
) -> None:
    before = load_splits(config(celeba), 0).attacker.digest
    for table in ("list_attr_celeba.txt", "identity_CelebA.txt", "list_eval_partition.txt"):
        lines = [line.replace(" ", "   ") for line in celeba.lines(table)]
        celeba.write(table, ["\ufeff" + lines[0], *lines[1:], "", "  "], newline)
    splits = load_splits(config(celeba), 0)
    check(splits, colour_of)
    assert splits.attacker.digest == before


def test_attributes_come_in_the_order_asked_for(celeba: Celeba) -> None:
    photos = load_splits(config(celeba), 0, ("Male", "Blond_Hair")).attacker
    assert photos.attributes == ("Male", "Blond_Hair")
    for name, row in zip(photos.ids, photos.labels_BA, strict=True):
        assert tuple(row) == (labels_of(int(name[:6]))[3], labels_of(int(name[:6]))[1])


def test_photos_with_two_hair_colours_or_none_are_not_used(celeba: Celeba) -> None:
    """Photos 20 to 29 get two colours, 30 to 39 none."""
    odd = {k: (1, 1, 0, 1) if k < 30 else (0, 0, 0, 1) for k in range(20, 40)}
    celeba.attributes([(name, odd.get(k, labels_of(k))) for k, name in enumerate(celeba.names)])
    splits = load_splits(config(celeba), 0)
    for photos in (splits.defender, splits.attacker, splits.evaluation):
        assert (photos.labels_BA[:, :3].sum(1) == 1).all()
        assert not {int(name[:6]) for name in photos.ids} & odd.keys()
    gender = load_splits(config(celeba), 0, ("Male",))
    assert odd.keys() & {int(name[:6]) for name in gender.attacker.ids + gender.evaluation.ids}


def drop_rows(celeba: Celeba, table: str) -> None:
    celeba.write(table, [line for line in celeba.lines(table) if not line.startswith(("000009", "000010"))])


def replace(celeba: Celeba, table: str, line: int, text: str) -> None:
    lines = celeba.lines(table)
    lines[line - 1] = text
    celeba.write(table, lines)


ATTR = "list_attr_celeba.txt"
BAD_ROWS = {
    "missing attribute row": (
        lambda c: c.attributes([(n, labels_of(k)) for k, n in enumerate(c.names) if k != 9]),
        "000009.jpg",
        "not in list_attr",
    ),
    "missing partition row": (lambda c: drop_rows(c, "list_eval_partition.txt"), "000009.jpg", "not in list_eval"),
    "missing identity row": (lambda c: drop_rows(c, "identity_CelebA.txt"), "000009.jpg", "not in identity"),
    "missing photo": (lambda c: c.photo("000010.jpg").unlink(), "000010.jpg", "not in img_align_celeba"),
    "wrong count": (lambda c: replace(c, ATTR, 1, "202599"), f"{ATTR}, line 1", "says 202599 photos, 60 rows"),
    "too few values": (lambda c: replace(c, ATTR, 12, "000009.jpg 1 -1 -1"), f"{ATTR}, line 12", "has 3 values"),
    "too many values": (lambda c: replace(c, ATTR, 12, "000009.jpg 1 -1 -1 1 1"), f"{ATTR}, line 12", "has 5 values"),
    "value not -1 or 1": (lambda c: replace(c, ATTR, 12, "000009.jpg 1 -1 -1 yes"), f"{ATTR}, line 12", "other than"),
    "row twice": (lambda c: replace(c, ATTR, 12, "000008.jpg 1 -1 -1 1"), f"{ATTR}, line 12", "there twice"),
    "path in a name": (
        lambda c: replace(c, ATTR, 12, "../../etc/passwd 1 -1 -1 1"),
        f"{ATTR}, line 12",
        "plain file name",
    ),
    "odd partition": (lambda c: replace(c, "list_eval_partition.txt", 10, "000009.jpg 7"), "000009.jpg", "partition 7"),
    "no partition": (
        lambda c: replace(c, "list_eval_partition.txt", 10, "000009.jpg"),
        "line 10",
        "expected a photo name",
    ),
    "identity not a number": (
        lambda c: replace(c, "identity_CelebA.txt", 10, "000009.jpg Ann"),
        "line 10",
        "'000009.jpg Ann'",
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_stops_or_is_skipped_and_listed(celeba: Celeba, colour_of: Colour, case: str) -> None:
    spoil, where, reason = BAD_ROWS[case]
    spoil(celeba)
    with pytest.raises(BadPhoto) as caught:
        load_splits(config(celeba), 0)
    assert where in str(caught.value)
    assert reason in str(caught.value)
    assert "on_bad: skip" in str(caught.value)
    splits = load_splits(config(celeba, "skip"), 0)
    check(splits, colour_of)
    assert any(where in item and reason in item for item in splits.skipped)
    if case != "wrong count":
        left_out = set(celeba.names) - {face.id for face in iter_faces(config(celeba, "skip"))}
        assert ("000010.jpg" if case == "missing photo" else "000009.jpg") in left_out
        assert left_out <= {"000009.jpg", "000010.jpg"}


BAD_FILES = {
    "no attribute file": (lambda c: (c.root / ATTR).unlink(), [ATTR, "missing"]),
    "no identity file": (lambda c: (c.root / "identity_CelebA.txt").unlink(), ["identity_CelebA.txt", "missing"]),
    "no photo folder": (lambda c: c.photo("").rename(c.root / "img"), ["img_align_celeba", "faces.path"]),
    "empty attribute file": (lambda c: (c.root / ATTR).write_bytes(b""), [ATTR, "ends before"]),
    "count line alone": (lambda c: (c.root / ATTR).write_bytes(b"60\n"), [ATTR, "ends before the attribute names"]),
    "no count line": (lambda c: c.write(ATTR, c.lines(ATTR)[1:]), [ATTR, "line 1", "number of photos"]),
    "binary attribute file": (lambda c: (c.root / ATTR).write_bytes(b"\x89PNG\xff\xfe"), [ATTR, "cannot be read"]),
}


@pytest.mark.parametrize("on_bad", ["stop", "skip"])
@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_wrong_as_a_whole_always_stops(celeba: Celeba, case: str, on_bad: str) -> None:
    spoil, parts = BAD_FILES[case]
    spoil(celeba)
    with pytest.raises(UserError) as caught:
        load_splits(config(celeba, on_bad), 0)
    for part in parts:
        assert part in str(caught.value)


def test_an_unknown_attribute_lists_those_there_are(celeba: Celeba) -> None:
    with pytest.raises(UserError, match=r"line 2: unknown attribute 'Young'; labelled there: Black_Hair, .*Male"):
        load_splits(config(celeba), 0, ("Male", "Young"))


def test_an_identity_in_training_and_evaluation_is_refused(celeba: Celeba) -> None:
    """Photo 0 is for evaluation; photo 4 for training now shows the same person."""
    replace(celeba, "identity_CelebA.txt", 5, "000004.jpg 100")
    with pytest.raises(UserError, match="both show identity 100; give every person one split"):
        load_splits(config(celeba), 0)


def test_more_than_there_is_names_both_numbers(celeba: Celeba) -> None:
    asked = FacesConfig(source="celeba", path=celeba.root, counts=Counts(defender=8, attacker=8, evaluation=50))
    with pytest.raises(
        UserError, match=r"50 evaluation photos asked for, there are 12 .*lower faces\.counts\.evaluation"
    ):
        load_splits(asked, 0)


def test_only_chosen_photos_are_opened(celeba: Celeba, monkeypatch: pytest.MonkeyPatch) -> None:
    from tsdf_ray.faces import celeba as module

    opened: list[str] = []
    read = module.read_bytes
    monkeypatch.setattr(module, "read_bytes", lambda path: opened.append(path.name) or read(path))
    splits = load_splits(config(celeba), 0)
    assert sorted(opened) == sorted(splits.defender.ids + splits.attacker.ids + splits.evaluation.ids)


def test_bad_photos_are_replaced_by_others_under_skip(celeba: Celeba, colour_of: Colour) -> None:
    """Every fifth photo is truncated: the counts still hold, none of them is used, those met are listed."""
    broken = celeba.names[::5]
    for name in broken:
        celeba.photo(name).write_bytes(celeba.photo(name).read_bytes()[:60])
    with pytest.raises(BadPhoto, match=r"0000\d\d\.jpg: .*(truncated|broken)"):
        load_splits(config(celeba), 0)
    splits = load_splits(config(celeba, "skip"), 0)
    check(splits, colour_of)
    assert (len(splits.defender), len(splits.attacker), len(splits.evaluation)) == (8, 16, 6)
    used = set(splits.defender.ids + splits.attacker.ids + splits.evaluation.ids)
    assert not used & set(broken)
    listed = [item.split(":")[0] for item in splits.skipped]
    assert listed
    assert set(listed) <= set(broken)
    assert len(set(listed)) == len(listed)
    assert splits.defender.skipped == splits.skipped


def test_too_many_bad_photos_name_the_numbers(celeba: Celeba) -> None:
    for name in celeba.names:
        if celeba.partition(int(name[:6])) == 2 and int(name[:6]) > 20:
            celeba.photo(name).write_bytes(b"")
    with pytest.raises(UserError, match="6 evaluation photos asked for, 5 of 12 are usable, 7 are bad"):
        load_splits(config(celeba, "skip"), 0)


def test_the_iterator_streams_every_photo(celeba: Celeba, colour_of: Colour) -> None:
    celeba.photo("000005.jpg").write_bytes(b"<html>")
    tally = Tally("skip")
    seen = 0
    for face in iter_faces(config(celeba), tally):
        k = int(face.id[:6])
        assert colour_of(face.pixels) == colour(k)
        assert tuple(face.labels[a] for a in ATTRIBUTES) == labels_of(k)
        assert face.identity == str(100 + k // 2)
        assert face.split == {0: "training", 1: "validation", 2: "evaluation"}[celeba.partition(k)]
        seen += 1
    assert seen == 59
    assert len(tally.skipped) == 1
    assert tally.skipped[0].startswith("000005.jpg: not a JPEG")


def test_the_iterator_decodes_one_at_a_time(celeba: Celeba) -> None:
    """The second photo is bad, and the first comes before anyone notices."""
    celeba.photo("000001.jpg").write_bytes(b"")
    faces = iter_faces(config(celeba))
    assert next(faces).id == "000000.jpg"
    with pytest.raises(BadPhoto, match=r"000001\.jpg: empty"):
        next(faces)
