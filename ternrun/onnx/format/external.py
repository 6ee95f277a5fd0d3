"""External data files of a model: each file must lie in the model's folder, is mapped once, and every range is checked.

The rules answer CVE-2022-25882, CVE-2024-27318, CVE-2024-5187, CVE-2026-27489 and CVE-2026-34445.
"""

from __future__ import annotations

import mmap
import re
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError

MAX_FILES = 4096
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


class ExternalData:
    """The data files of the model in `folder`. None: a model in memory, which cannot have such files."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._maps: dict[str, NDArray[np.uint8]] = {}

    @property
    def size(self) -> int:
        """The total size in bytes of all opened files."""
        return sum(m.size for m in self._maps.values())

    def __call__(self, entries: dict[str, str], wanted: int, what: str) -> NDArray[np.uint8]:
        """The bytes that a tensor's external_data `entries` name. Raises LoadError naming the tensor and the file."""
        location = entries.get("location", "")
        data = self._open(location, what)
        offset = _number(entries.get("offset", "0"), what, "offset")
        length = _number(entries.get("length", str(wanted)), what, "length")
        if length != wanted:
            raise LoadError(f"{what} asks for {wanted} bytes, but its external data states {length}")
        if offset + length > data.size:
            raise LoadError(
                f"{what} asks for bytes {offset} to {offset + length} of {location[:80]!r}, which has {data.size}; "
                "download it again"
            )
        return data[offset : offset + length]

    def _open(self, location: str, what: str) -> NDArray[np.uint8]:
        """Map a file, once."""
        if location not in self._maps:
            if len(self._maps) == MAX_FILES:
                raise LoadError(f"{what}: the model's data lies in more than {MAX_FILES} files")
            path = self._path(location, what)
            try:
                if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe could wait forever
                    raise LoadError(f"{what}: its data file {location[:80]!r} is not a regular file")
                with path.open("rb") as f:
                    empty = not path.stat().st_size
                    mapped = b"" if empty else mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
                    self._maps[location] = np.frombuffer(mapped, np.uint8)
            except FileNotFoundError as e:
                raise LoadError(f"{what}: its data file {location[:80]!r} is missing; put it beside the model") from e
            except (OSError, ValueError) as e:
                raise LoadError(f"{what}: its data file {location[:80]!r} cannot be read: {e}") from e
        return self._maps[location]

    def _path(self, location: str, what: str) -> Path:
        """The path of a data file in the model's folder, or in the blobs of its Hugging Face cache.

        Raises LoadError.
        """
        if self._folder is None:
            raise LoadError(f"{what} has its data in a file of its own, which a model in memory cannot have")
        parts = location.split("/")
        if not location or any(p in ("", "..") for p in parts) or re.search(r"[\\\0]|^[A-Za-z]:", location):
            raise LoadError(f"{what} names the data file {location[:80]!r}, which is not a file of the model's folder")
        try:
            folder = self._folder.resolve(strict=True)
            path = self._folder.joinpath(*parts).resolve(strict=False)
        except (OSError, RuntimeError, ValueError) as e:  # RuntimeError: a circle of symlinks
            raise LoadError(f"{what}: its data file {location[:80]!r} cannot be read: {e}") from e
        if not path.is_relative_to(folder) and path.parent not in _blobs(folder):
            raise LoadError(f"{what}: its data file {location[:80]!r} is a link that leads out of the model's folder")
        return path


def _blobs(folder: Path) -> list[Path]:
    """The `blobs` folders that the links of a Hugging Face cache's `snapshots/REVISION/` point to."""
    return [
        p.parents[1] / "blobs" for p in (folder, *folder.parents)
        if len(p.parents) > 1 and p.parent.name == "snapshots" and p.parents[1].name.startswith("models--")
    ]  # fmt: skip


def _number(text: str, what: str, name: str) -> int:
    """Parse a nonnegative integer."""
    if not _NUMBER.fullmatch(text):
        raise LoadError(f"{what}: the {name} {text[:40]!r} of its external data is not a number")
    return int(text)
