"""A slot on the disk: a header, token ids, keys and values layer by layer, and BLAKE2b of all that.

The header is little-endian: "ternslot", version, number of tokens, then the digest of the model's weights and what kind
of keys and values it has (see `backend.Memory`). A file is put in place whole, readable by its owner only.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from io import BufferedReader
from itertools import chain
from pathlib import Path
from tempfile import mkstemp

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError

HEADER = struct.Struct("<8sII32s24s")
MAGIC, VERSION = b"ternslot", 1
DIGEST = 32  # bytes


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose keys and values may be used: those of the same weights, computed and kept in the same way."""

    model: bytes
    kind: str
    block_size: int  # tokens
    block_bytes: int  # of all layers


def write(path: Path, owner: Owner, ids: Sequence[int], layers: Iterable[NDArray[np.uint8]]) -> int:
    """Put a file in place; returns its bytes. Raises OSError."""
    handle, temporary = mkstemp(dir=path.parent, prefix=".slot-")
    try:
        with os.fdopen(handle, "wb") as file:
            state = blake2b(digest_size=DIGEST)
            header = HEADER.pack(MAGIC, VERSION, len(ids), owner.model, owner.kind.encode())
            parts = chain((np.frombuffer(header, np.uint8), np.array(ids, "<i4")), layers)
            for data in (part.data.cast("B") for part in parts):
                state.update(data)
                file.write(data)
            file.write(state.digest())
            size = file.tell()
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
    return size


class Saved:
    """A file that fits this owner, being read: first `ids`, then `layer` for each, then `check`."""

    def __init__(self, file: BufferedReader, owner: Owner) -> None:
        """Raises LoadError for what is no such file, another owner's, or not as long as it has to be."""
        head = file.read(HEADER.size)
        if len(head) < HEADER.size or head[:8] != MAGIC:
            raise LoadError("this file is no saved slot")
        _, version, count, model, kind = HEADER.unpack(head)
        if version != VERSION:
            raise LoadError(f"this file was saved in another version's format ({version}, not {VERSION})")
        if model != owner.model:
            raise LoadError("this file was saved from another model")
        if kind.rstrip(b"\0") != owner.kind.encode():
            raise LoadError(f"this file was saved with keys and values of another kind than {owner.kind!r}")
        blocks, rest = divmod(count, owner.block_size)
        self.size = HEADER.size + 4 * count + blocks * owner.block_bytes + DIGEST
        if rest or not blocks or os.fstat(file.fileno()).st_size != self.size:
            raise LoadError("this file is damaged: it is not as long as it says")
        self._file, self._state = file, blake2b(head, digest_size=DIGEST)
        self.ids: list[int] = self._read(4 * count).view("<i4").tolist()

    def layer(self, n_blocks: int, block_bytes: int) -> NDArray[np.uint8]:
        """The next layer's keys and values: (n_blocks, block_bytes)."""
        return self._read(n_blocks * block_bytes).reshape(n_blocks, block_bytes)

    def check(self) -> None:
        """Raises LoadError unless all that was read is what was written."""
        if self._file.read(DIGEST) != self._state.digest():
            raise LoadError("this file is damaged: its checksum is another")

    def _read(self, size: int) -> NDArray[np.uint8]:
        data = np.empty(size, np.uint8)
        if self._file.readinto(data.data) != size:
            raise LoadError("this file is damaged: it ends too early")
        self._state.update(data.data)
        return data


@contextmanager
def opened(path: Path, owner: Owner) -> Iterator[Saved]:
    """A saved slot, to be read. Raises LoadError, OSError."""
    with path.open("rb") as file:
        yield Saved(file, owner)


def is_saved(path: Path) -> bool:
    """Whether a file begins as a saved slot does. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
