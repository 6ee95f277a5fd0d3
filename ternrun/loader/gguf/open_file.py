"""From a path to mapped bytes, and from the name of one part of a split model to the paths of all parts."""

from __future__ import annotations

import mmap
import re
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.gguf.header import SEED_MAGIC

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_MAX_PARTS = 4096


def map_file(path: Path) -> NDArray[np.uint8]:
    """The file's bytes, read-only, mapped. Raises LoadError for anything that is not a GGUF file by its first bytes."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise LoadError(f"{path} is a folder; name the .gguf file in it")
        if not stat.S_ISREG(mode):  # opening a pipe could wait forever
            raise LoadError(f"{path} is not a regular file")
        with path.open("rb") as f:
            _check_magic(path, f.read(4))
            return np.frombuffer(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except FileNotFoundError as e:
        raise LoadError(f"{path} does not exist") from e
    except (OSError, ValueError) as e:  # ValueError: a NUL in the path
        reason = e.strerror if isinstance(e, OSError) else str(e)
        raise LoadError(f"{path} cannot be read: {reason}") from e


def _check_magic(path: Path, magic: bytes) -> None:
    """Raises LoadError for a file that does not begin as a GGUF file."""
    if magic not in (b"GGUF", SEED_MAGIC):
        raise LoadError(f"{path} is not a GGUF file (it starts with {magic!r})")


def parts_named(path: Path) -> int:
    """How many files the model has, by the name of one of them."""
    match = _PART.fullmatch(path.name)
    return int(match[3]) if match else 1


def part_paths(path: Path) -> list[Path]:
    """All files of the model that `path` is a part of, by its name, in order. Raises LoadError for a missing part."""
    match = _PART.fullmatch(path.name)
    if not match:
        return [path]
    stem, number, total = match[1], int(match[2]), int(match[3])
    if not 1 <= number <= total <= _MAX_PARTS:
        raise LoadError(f"{path} has an impossible name: part {number} of {total}")
    paths = [path.with_name(f"{stem}-{i:05}-of-{total:05}.gguf") for i in range(1, total + 1)]
    if path.exists():
        for p in paths:
            if not p.exists():
                raise LoadError(f"{p} is missing: {path.name} is one of {total} parts, which must lie together")
    return paths
