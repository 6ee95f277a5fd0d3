"""String arrays of a GGUF file (vocabularies, merges), found in bulk and decoded on demand.

A string is a u64 length and that many bytes, so the start of each depends on all before it. Seven zero bytes in a row
give most prefixes away (no token holds a NUL): guess all of them at once, then verify that each guess follows from
the one before. Whatever the guess misses is walked one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

MAX_STRINGS = 1 << 21  # several times the largest vocabulary or merge table in use
_CHUNK = 1 << 18  # bytes guessed at a time
_GOOD_RUN = 1024  # strings
_MAX_STEPS = 1 << 16
_LENGTH = struct.Struct("<Q").unpack_from
_SEPARATOR = "\0"
_MARK = 0xFEFEFEFEFEFEFEFF  # bytes that are in no UTF-8 text: FF becomes the separator, FE nothing
_MARK_TO_SEPARATOR = bytes(range(255)) + _SEPARATOR.encode()


def walk(data: U8, start: int, count: int) -> I64 | None:
    """Positions (count + 1,) of the strings' length prefixes in `data`, and of the end; None if they run past it."""
    found: list[I64] = []
    at, left, steps = start, count, 1
    while left:
        run = _guess(data[at : at + _CHUNK], left)
        if run.size:
            found.append(run[:-1] + at)
            at += int(run[-1])
            left -= run.size - 1
        # a poor guess costs as much as a good one: after each, walk twice as far before guessing again
        steps = 1 if run.size >= _GOOD_RUN else min(2 * steps, _MAX_STEPS)
        walked = _step(data, at, min(steps, left))
        if walked is None:
            return None
        found.append(walked[:-1])
        at = int(walked[-1])
        left -= walked.size - 1
    return np.concatenate([*found, np.array([at])])


def _step(data: U8, at: int, count: int) -> I64 | None:
    view, last, positions = data.data, data.size - 8, [at]
    for _ in range(count):
        if at > last:
            return None
        at += 8 + _LENGTH(view, at)[0]
        positions.append(at)
    return np.array(positions) if at <= data.size else None


def _guess(chunk: U8, limit: int) -> I64:
    """Prefixes of consecutive strings from position 0 on, as far as the guess holds (at most `limit`)."""
    zero = chunk[1:] == 0
    zero = zero[:-1] & zero[1:]
    zero = zero[:-2] & zero[2:]
    guess = np.flatnonzero(zero[:-3] & zero[3:])[:limit]
    if not guess.size or guess[0]:
        return guess[:0]
    follows = guess[:-1] + chunk[guess[:-1]] + 8 == guess[1:]
    return guess if follows.all() else guess[: int(follows.argmin()) + 1]


class StringArray(Sequence[str]):
    """The strings of one metadata array. Decoding raises LoadError for what is not UTF-8."""

    def __init__(self, data: U8, positions: I64, where: str) -> None:
        self._data = data
        self._positions = positions
        self._where = where

    def __len__(self) -> int:
        return self._positions.size - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return self.tolist()[index]
        i = range(len(self))[index]
        return self._decode(self.raw(i), i)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def __repr__(self) -> str:
        return f"<{len(self)} strings>"

    def raw(self, index: int) -> bytes:
        """Bytes of one string."""
        return self._data[self._positions[index] + 8 : self._positions[index + 1]].tobytes()

    def tolist(self) -> list[str]:
        """All strings, by one decode and one split of the whole."""
        joined = self._join()
        if joined is not None:
            try:
                return joined.decode().split(_SEPARATOR)[1:]
            except UnicodeDecodeError:
                pass  # the slow way names the string
        return [self._decode(self.raw(i), i) for i in range(len(self))]

    def _join(self) -> bytes | None:
        """The strings, each after a separator, which is put over its length prefix; None where it occurs in one."""
        first, end = int(self._positions[0]), int(self._positions[-1])
        block = self._data[first:end].copy()
        if not block.size:
            return None
        anywhere = np.ndarray((block.size - 7,), "<u8", block, 0, (1,))  # eight bytes from any position on
        anywhere[self._positions[:-1] - first] = _MARK
        if np.count_nonzero(block == 255) != len(self) or np.count_nonzero(block == 254) != 7 * len(self):
            return None
        joined = block.tobytes().translate(_MARK_TO_SEPARATOR, b"\xfe")
        return joined if joined.count(_SEPARATOR.encode()) == len(self) else None

    def _decode(self, raw: bytes, index: int) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as e:
            raise LoadError(f"{self._where}: string {index} is not valid UTF-8 ({raw[:32]!r})") from e
