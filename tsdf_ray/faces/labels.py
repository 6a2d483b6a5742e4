"""Label files: CelebA's text tables and CSV, parsed by photo name, never by row arithmetic.

A row that is wrong is a BadPhoto (stop, or skip and list it); a file that is wrong as a whole is a UserError.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tsdf_ray.errors import UserError
from tsdf_ray.faces.decode import BadPhoto
from tsdf_ray.faces.source import SPLITS, Tally, unknown_attribute

Labels = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class CsvRow:
    """One row of labels.csv: labels of 0 and 1 in the order asked for."""

    labels: tuple[int, ...]
    split: str | None
    identity: str | None


def read_attributes(path: Path, attributes: tuple[str, ...], tally: Tally) -> Labels:
    """CelebA's list_attr_celeba.txt: a line with the count, one with the names, then 'photo.jpg -1 1 ...'.

    Returns photo name -> labels (0 or 1) of `attributes`, in that order.
    """
    lines = _lines(path)
    count = _next(lines, path, "the number of photos")
    if not (count.strip().isascii() and count.strip().isdigit()):
        raise UserError(f"{path}, line 1: expected the number of photos, found {count.strip()[:40]!r}; add that line")
    names = _next(lines, path, "the attribute names").split()
    for name in attributes:
        if name not in names:
            raise unknown_attribute(f"{path}, line 2", name, names)
    columns = [names.index(name) for name in attributes]
    found: Labels = {}
    rows = 0
    for number, line in lines:
        name, *values = line.split() or [""]
        if not name:
            continue
        rows += 1
        where = f"{path}, line {number}"
        try:
            _check_name(where, name, found)
            found[name] = _attribute_row(where, name, values, columns, len(names))
        except BadPhoto as error:
            tally.bad(error)
    if rows != int(count):
        tally.bad(BadPhoto(f"{path}, line 1", f"says {int(count)} photos, {rows} rows follow", _COUNT_REMEDY))
    return found


def _attribute_row(where: str, name: str, values: list[str], columns: list[int], width: int) -> tuple[int, ...]:
    if len(values) != width:
        raise BadPhoto(where, f"{name} has {len(values)} values, line 2 names {width} attributes")
    chosen = [values[c] for c in columns]
    if not {"-1", "1"}.issuperset(chosen):
        raise BadPhoto(where, f"{name} has a value other than -1 and 1")
    return tuple(int(value == "1") for value in chosen)


_COUNT_REMEDY = "get the whole file, correct the number, or set faces.on_bad: skip"


def read_pairs(path: Path, what: str, tally: Tally) -> dict[str, str]:
    """A table 'photo.jpg value' (list_eval_partition.txt, identity_CelebA.txt): photo name -> value, a whole number."""
    found: dict[str, str] = {}
    for number, line in _lines(path):
        fields = line.split()
        if not fields:
            continue
        where = f"{path}, line {number}"
        try:
            name, value = _pair(where, fields, what)
            _check_name(where, name, found)
        except BadPhoto as error:
            tally.bad(error)
            continue
        found[name] = value
    return found


def _pair(where: str, fields: list[str], what: str) -> tuple[str, str]:
    if len(fields) != 2 or not (fields[1].isascii() and fields[1].isdigit()):
        raise BadPhoto(where, f"expected a photo name and {what}, found {' '.join(fields)[:60]!r}")
    return fields[0], str(int(fields[1]))


def read_csv(path: Path, attributes: tuple[str, ...], tally: Tally) -> dict[str, CsvRow]:
    """labels.csv: a header with `id` (path of the photo in the folder), attributes (0 or 1; -1 counts as 0), and
    optionally `split` (defender, attacker, evaluation) and `identity`. Returns id -> row."""
    found: dict[str, CsvRow] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            _check_header(path, header, attributes)
            for fields in rows:
                if not fields:
                    continue
                try:
                    row = _csv_row(f"{path}, line {rows.line_num}", header, fields, attributes, found)
                except BadPhoto as error:
                    tally.bad(error)
                    continue
                found[row["id"]] = CsvRow(
                    tuple(int(row[a] == "1") for a in attributes), row.get("split"), row.get("identity")
                )
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as CSV in UTF-8") from error
    return found


def _check_header(path: Path, header: list[str], attributes: tuple[str, ...]) -> None:
    if "id" not in header or len(set(header)) != len(header):
        raise UserError(f"{path}, line 1: needs a header with a column `id` and no name twice, found {header[:8]}")
    for name in attributes:
        if name not in header or name in {"id", "split", "identity"}:
            raise unknown_attribute(
                f"{path}, line 1", name, [n for n in header if n not in {"id", "split", "identity"}]
            )


def _csv_row(
    where: str, header: list[str], fields: list[str], attributes: tuple[str, ...], seen: Collection[str]
) -> dict[str, str]:
    if len(fields) != len(header):
        raise BadPhoto(where, f"{len(fields)} fields, the header has {len(header)}")
    row = {name: field.strip() for name, field in zip(header, fields, strict=True)}
    if not row["id"]:
        raise BadPhoto(where, "no id")
    if row["id"] in seen:
        raise BadPhoto(where, f"{row['id']} is there twice")
    for name in attributes:
        if row[name] not in {"0", "1", "-1"}:
            raise BadPhoto(where, f"{name} of {row['id']} is {row[name]!r}, expected 0 or 1")
    if row.get("split", SPLITS[0]) not in SPLITS:
        raise BadPhoto(where, f"split {row['split']!r}, expected one of {', '.join(SPLITS)}")
    if row.get("identity") == "":
        raise BadPhoto(where, f"no identity of {row['id']}")
    return row


def _check_name(where: str, name: str, seen: Collection[str]) -> None:
    """Names come from a file we do not trust and become paths: only plain file names pass."""
    if "/" in name or "\\" in name or "\x00" in name or name in {".", ".."}:
        raise BadPhoto(where, f"{name[:60]!r} is not a plain file name")
    if name in seen:
        raise BadPhoto(where, f"{name} is there twice")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, text), for any line ending. Raises UserError: missing, or not a text file."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from enumerate(file, start=1)
    except FileNotFoundError as error:
        raise UserError(f"{path}: file is missing; put CelebA's {path.name} there") from error
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); replace it by CelebA's own") from error


def _next(lines: Iterator[tuple[int, str]], path: Path, what: str) -> str:
    for _, line in lines:
        return line
    raise UserError(f"{path}: ends before {what}; replace it by the whole file")
