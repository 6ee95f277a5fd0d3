"""Text and ids that a user hands in: as an argument, from standard input, or from a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ternrun.errors import UsageError


def read_text(argument: str | None, what: str = "prompt") -> str:
    """The argument itself; standard input where it is `-` or missing. Raises UsageError where it is not UTF-8."""
    if argument is not None and argument != "-":
        return typed(argument, f"the {what}")
    if sys.stdin.isatty():
        sys.stderr.write(f"type the {what}, then Ctrl-D\n")
    return utf8(sys.stdin.buffer.read(), f"the {what}")


def typed(text: str, what: str) -> str:
    """Text as Python hands it over: what is not UTF-8 came as lone surrogates, for which it raises UsageError."""
    return utf8(text.encode("utf-8", "surrogateescape"), what)


def read_file(path: str) -> str:
    """A text file, or standard input where the path is `-`. Raises UsageError where it is not UTF-8."""
    return read_text(None, "text") if path == "-" else utf8(Path(path).read_bytes(), path)


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
