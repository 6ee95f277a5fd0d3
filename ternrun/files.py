"""Files that appear whole or not at all, and write over none that is there unless that is asked for."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ternrun.errors import UsageError


def add_force(parser: ArgumentParser, what: str = "a file that is there already") -> None:
    """The flag of every command that writes a file the user names: without it, `check_new` refuses."""
    parser.add_argument("--force", action="store_true", help=f"write over {what}")


def check_new(path: Path, *, force: bool) -> None:
    """Raises UsageError as `check_target`, and where `path` is there already, unless `force` is set."""
    check_target(path)
    if path.exists() and not force:
        raise UsageError(f"{path} is there already; --force writes over it")


def check_target(path: Path) -> None:
    """Raises UsageError where no file can take the name `path`, or would put a pipe or device out of the way.

    `-` is refused, too: it means standard output elsewhere, and a file of that name is hard to get rid of.
    """
    if str(path) == "-":
        raise UsageError("- is standard output; name the file to write")
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{path} is a folder or lies in none that exists; name the file to write")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no regular file; name another to write")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden path beside `path` to write to, which takes its place when the block ends, or goes where that fails.

    Whatever was at `path` stands until then. Raises UsageError as `check_target`, OSError where the disk refuses.
    """
    check_target(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        with beside.open("rb" if os.name == "posix" else "rb+") as file:
            os.fsync(file.fileno())  # a name that outlives a power cut should name what was written
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
