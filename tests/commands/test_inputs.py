"""Prompts and ids from outside: bytes that are not UTF-8, JSON that is not ids."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from ternrun.commands.inputs import read_file, read_ids, read_text
from ternrun.errors import UsageError


@pytest.mark.parametrize("argument", [None, "-"])
def test_reads_standard_input_as_it_is(argument: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("a\r\nö\n".encode())))
    assert read_text(argument) == "a\r\nö\n"


def test_an_argument_that_is_not_utf8_is_refused() -> None:
    assert read_text("grün") == "grün"
    with pytest.raises(UsageError, match=r"the prompt is not UTF-8 text \(byte 1\)"):
        read_text(os.fsdecode(b"a\xff"))


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="x.bin is not UTF-8"):
        read_file(str(path))


def test_ids_are_one_list_or_several() -> None:
    assert read_ids("[1, 2]") == [[1, 2]]
    assert read_ids("[[1], []]") == [[1], []]
    assert read_ids("[]") == []


@pytest.mark.parametrize("text", ["", "{}", "3", '["1"]', "[1.0]", "[[1], 2]", "[true]", "[[[1]]]", "[" * 100_000])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the input (is not JSON|must be a JSON list)"):
        read_ids(text)
