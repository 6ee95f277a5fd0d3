"""Prompts and ids from outside: bytes that are not UTF-8, JSON that is not ids."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ternrun.commands.inputs import read_file, read_ids, read_text
from ternrun.errors import UsageError
from ternrun.loader.user_path import from_home

Run = Callable[..., Any]


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


def test_what_has_no_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ternrun.commands.inputs.MAX_TEXT", 2**20)
    path = tmp_path / "long.txt"
    path.write_bytes(b"a" * 2**20)
    assert len(read_file(str(path))) == 2**20
    path.write_bytes(b"a" * (2**20 + 1))
    with pytest.raises(UsageError, match="long.txt is larger than 1 MiB"):
        read_file(str(path))
    if Path("/dev/zero").exists():
        with pytest.raises(UsageError, match="/dev/zero is larger than 1 MiB"):
            read_file("/dev/zero")


def test_ids_are_one_list_or_several() -> None:
    assert read_ids("[1, 2]") == [[1, 2]]
    assert read_ids("[[1], []]") == [[1], []]
    assert read_ids("[]") == []


@pytest.mark.parametrize("text", ["", "{}", "3", '["1"]', "[1.0]", "[[1], 2]", "[true]", "[[[1]]]", "[" * 100_000])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the input (is not JSON|must be a JSON list)"):
        read_ids(text)


def test_a_home_that_nobody_has_is_one_sentence() -> None:
    assert from_home("~").is_absolute()
    with pytest.raises(UsageError, match="~nobody.of.that.name/x begins with a home folder that is not known"):
        from_home("~nobody.of.that.name/x")


@pytest.mark.parametrize(
    "argv",
    [
        ["inspect", "~nobody.of.that.name/x"],
        ["complete", "-m", "~nobody.of.that.name/x", "a"],
        ["chat", "--load", "~nobody.of.that.name/x"],
        ["chat", "-m", "TINY", "--history", "~nobody.of.that.name/x"],
        ["convert", "TINY", "~nobody.of.that.name/x", "--type", "tq2_0"],
        ["bench", "-m", "~nobody.of.that.name/x"],
    ],
)
def test_commands_say_so(argv: list[str], tiny: str, ternrun: Run) -> None:
    done = ternrun(*(tiny if word == "TINY" else word for word in argv))
    assert done.code == 2
    assert "begins with a home folder that is not known" in done.err


@pytest.mark.parametrize(
    "argv", [["complete", "-m", "", "a"], ["inspect", ""], ["tokenize", "", "a"], ["bench", "-m", ""]]
)
def test_an_empty_name_is_not_the_carried_model(argv: list[str], ternrun: Run) -> None:
    done = ternrun(*argv)
    assert (done.code, done.out, done.err) == (2, "", "ternrun: error: the name of the model is empty\n")


@pytest.mark.parametrize("argv", [["--stop", os.fsdecode(b"a\xff")], ["--chat", "--system", os.fsdecode(b"a\xff")]])
def test_texts_of_flags_must_be_utf8(argv: list[str], tiny: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ternrun", "complete", "-m", tiny, "a", *argv],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "is not UTF-8 text (byte 1)" in done.stderr
