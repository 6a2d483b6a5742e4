"""A scenario from a stranger is data: no Python object, no bomb, no endless file."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdf_ray.errors import UserError
from tsdf_ray.scenario.yamlfile import MAX_BYTES, parse_yaml, read_yaml

PROOF = "tsdf_ray_was_here"


@pytest.mark.parametrize(
    "value",
    [
        f"!!python/object/apply:os.putenv [{PROOF}, x]",
        f"!!python/object/new:os.putenv [{PROOF}, x]",
        "!!python/name:os.system",
        "!!python/object:tsdf_ray.errors.UserError {a: 1}",
        "!!python/tuple [1, 2]",
        "!!binary aGVsbG8=",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!mine {a: 1}",
        "!mine [1]",
        "!mine text",
        "2026-11-24",
        "!!int many",
        "!!timestamp 2026-13-45",
    ],
)
@pytest.mark.parametrize("form", ["a: {}", "- {}", "{}", "? {}\n: 1"])
def test_only_plain_values(value: str, form: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_yaml(form.replace("{}", value, 1), "file.yaml")
    assert str(caught.value).startswith("file.yaml")
    assert PROOF not in os.environ


def test_alias_bomb_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    began = time.perf_counter()
    with pytest.raises(UserError, match="aliases"):
        parse_yaml("\n".join(lines), "bomb.yaml")
    assert time.perf_counter() - began < 10
    with pytest.raises(UserError, match="key is not text"):
        parse_yaml("\n".join([*lines[:2], "? *a1\n: 1"]), "bomb.yaml")


def test_alias_in_itself() -> None:
    with pytest.raises(UserError, match="contains itself"):
        parse_yaml("a: &a [*a]", "loop.yaml")


def test_plain_aliases_work() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: *a", "file.yaml").content == {"a": {"x": 1}, "b": {"x": 1}}


@pytest.mark.parametrize("text", ["[" * 1500, "{a: " * 1500, "- " * 1500])
def test_deep_nesting(text: str) -> None:
    with pytest.raises(UserError, match=r"deep\.yaml"):
        parse_yaml(text, "deep.yaml")


def test_large_file(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(UserError, match="larger than"):
        read_yaml(path)


def test_device_is_not_read() -> None:
    with pytest.raises(UserError, match="not a file"):
        read_yaml(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("text", "line"), [("a: 1\nb: [1\n", 3), ("a: 1\n\tb: 2\n", 2), ("a: 1\nb: 2: 3\n", 2), ("a: *nothing\n", 1)]
)
def test_broken_yaml_names_the_line(text: str, line: int) -> None:
    with pytest.raises(UserError, match=rf"file\.yaml:{line}: not valid YAML"):
        parse_yaml(text, "file.yaml")


def test_lines_of_keys() -> None:
    document = parse_yaml("a: 1\nb:\n  c:\n  - d: 1\n    e: 2\n", "file.yaml")
    assert document.where(("b", "c", 0, "e")) == "file.yaml:5"
    assert document.where(("b", "c", 0, "missing")) == "file.yaml:4"
    assert document.where(("missing",)) == "file.yaml"


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_document_or_a_user_error(text: str) -> None:
    # Any other exception than UserError is a bug.
    with contextlib.suppress(UserError):
        assert parse_yaml(text, "file.yaml").values > 0


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab:-?[]{}&*!|>#%@`'\",\n 01.~<", max_size=40))
def test_any_punctuation_is_a_document_or_a_user_error(text: str) -> None:
    # Any other exception than UserError is a bug.
    with contextlib.suppress(UserError):
        assert parse_yaml(text, "file.yaml").values > 0
