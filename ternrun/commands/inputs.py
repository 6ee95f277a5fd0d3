"""Text and ids that a user hands in: as an argument, from standard input, or from a file."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from ternrun.errors import UsageError

MAX_TEXT = 2**30  # bytes: what comes from a device or a pipe may have no end
_CHUNK = 2**20


def read_text(argument: str | None, what: str = "prompt") -> str:
    """The argument itself; standard input where it is `-` or missing.

    Raises UsageError where it is not UTF-8 or too large.
    """
    if argument is not None and argument != "-":
        return typed(argument, f"the {what}")
    if sys.stdin.isatty():
        sys.stderr.write(f"type the {what}, then Ctrl-D\n")
    return _read(sys.stdin.buffer, f"the {what}")


def given_text(args: argparse.Namespace, what: str) -> str:
    """The text of a command that takes one: the argument or -p (`text`), the file of -f, else standard input.

    Raises as `read_text` and `read_file`.
    """
    if args.file is not None:
        return read_file(args.file)
    return typed(args.prompt, f"the {what}") if args.prompt is not None else read_text(args.text, what)


def typed(text: str, what: str) -> str:
    """Text as Python hands it over: what is not UTF-8 came as lone surrogates, for which it raises UsageError."""
    return utf8(text.encode("utf-8", "surrogateescape"), what)


def read_file(path: str) -> str:
    """A text file, or standard input where the path is `-`. Raises UsageError where it is not UTF-8 or too large."""
    if path == "-":
        return read_text(None, "text")
    with Path(path).open("rb") as file:
        return _read(file, path)


def _read(file: BinaryIO, what: str) -> str:
    chunks = iter(partial(file.read, _CHUNK), b"")  # one read of so much would ask for all the memory at once
    data = b"".join(islice(chunks, MAX_TEXT // _CHUNK + 1))
    if len(data) > MAX_TEXT:
        raise UsageError(f"{what} is larger than {MAX_TEXT >> 20:,} MiB")
    return utf8(data, what)


def utf8(data: bytes, what: str) -> str:
    """Decoded bytes. Raises UsageError that names `what`."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} is not UTF-8 text (byte {error.start})") from error


def read_ids(text: str, what: str = "the input") -> list[list[int]]:
    """Token ids from JSON: a list of lists, or one list. Raises UsageError."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} is not JSON: {error}") from error
    if isinstance(value, list) and value and not isinstance(value[0], list):
        value = [value]
    ok = isinstance(value, list) and all(isinstance(row, list) for row in value)
    if not ok or not all(type(i) is int for row in value for i in row):
        raise UsageError(f"{what} must be a JSON list of token ids, or a list of such lists")
    return [list(row) for row in value]
