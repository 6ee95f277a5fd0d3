"""JSON files of a model folder: every read has a bound, and what is not a sound JSON object is refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ternrun.errors import LoadError

MAX_JSON = 1 << 26  # bytes of a JSON file of a model (a large tokenizer.json has 30 MB)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file at `path`. Raises LoadError if it is missing, too large or not one."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise LoadError(f"{path} is larger than any such file should be ({path.stat().st_size} bytes)")
        return parse_json(path.read_bytes(), str(path))
    except (OSError, ValueError) as e:
        raise LoadError(f"{path} cannot be read: {e}") from e


def parse_json(text: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in `text`, in which no key occurs twice. Raises LoadError, which begins with `where`."""
    try:
        value = json.loads(text.decode(), object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as e:
        raise LoadError(f"{where} is not sound JSON: {str(e)[:120]}") from e
    if not isinstance(value, dict):
        raise LoadError(f"{where} is not a JSON object")
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice in it")
    return table
