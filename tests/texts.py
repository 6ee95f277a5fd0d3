"""Texts that tests read: those beside this file, and larger ones where this machine has them.

Larger ones (tinyshakespeare.txt, HumanEval.jsonl) are looked for in the folder that the environment variable
TERNRUN_DATA names, or else in a folder shared/data beside the checkout. No test depends on them.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent / "data"
_BESIDE = Path(__file__).parents[2] / "shared" / "data"


def data_file(name: str) -> Path | None:
    """A file of the data folder; None where there is none."""
    path = Path(os.environ.get("TERNRUN_DATA", _BESIDE)) / name
    return path if path.is_file() else None


def texts() -> dict[str, str]:
    """Every text this machine has, by name: `unicode` and `plain` always."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    paths = {
        "unicode": HERE / "unicode.txt",
        "plain": HERE / "plain.txt",
        "tinyshakespeare": data_file("tinyshakespeare.txt"),
        "humaneval": data_file("HumanEval.jsonl"),
        "argparse.py": stdlib / "argparse.py",
        "inspect.py": stdlib / "inspect.py",
    }
    return {name: read(path) for name, path in paths.items() if path is not None and path.is_file()}


def read(path: Path) -> str:
    """A file's text as it is, line ends included."""
    return path.read_bytes().decode()
