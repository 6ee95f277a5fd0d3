"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden path beside `path` to write to, which takes its place when the block ends, or goes where that fails.

    Whatever was at `path` stands until then. Raises OSError where the disk refuses.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        with beside.open("rb" if os.name == "posix" else "rb+") as file:
            os.fsync(file.fileno())  # a name that outlives a power cut should name what was written
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
