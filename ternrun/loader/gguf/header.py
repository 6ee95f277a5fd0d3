"""The header of a GGUF file: metadata and tensor table, every count and length checked against the bytes there are.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.gguf.strings import MAX_STRINGS, StringArray, walk

MAX_KEYS = 1 << 15
MAX_TENSORS = 1 << 15
MAX_NAME = (1 << 16) - 1  # bytes of a key or tensor name
MAX_ALIGNMENT = 1 << 20
MAX_ELEMENTS = 1 << 48
SEED_MAGIC = b"GUGF"  # how the seed project wrote it

BOOL, STRING, ARRAY = 7, 8, 9
NUMBERS: dict[int, np.dtype[Any]] = {
    0: np.dtype("u1"), 1: np.dtype("i1"), 2: np.dtype("<u2"), 3: np.dtype("<i2"), 4: np.dtype("<u4"),
    5: np.dtype("<i4"), 6: np.dtype("<f4"), 7: np.dtype("?"), 10: np.dtype("<u8"), 11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One line of the tensor table; shape in numpy order, offset relative to the data section."""

    name: str
    type_id: int
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """All that stands before the weights; tensors in file order."""

    version: int
    seed: bool  # the seed project's dialect
    metadata: dict[str, Any]
    tensors: list[TensorInfo]
    alignment: int
    data_start: int


class Cursor:
    """Reads numbers and strings from the front of `data`, never past its end. `where` names what is being read."""

    def __init__(self, data: NDArray[np.uint8], file: str) -> None:
        self.data = data
        self.view = data.data
        self.file = file
        self.where = "header"
        self.at = 0

    def fail(self, fault: str) -> NoReturn:
        """Raise the LoadError of what is being read."""
        raise LoadError(f"{self.file}: {self.where} {fault}")

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return self.data.size - self.at

    def take(self, n: int) -> int:
        """Position of the next n bytes, which are thereby read."""
        if n > self.left:
            self.fail(f"needs {n} bytes where {self.left} are left; the file is damaged or its download incomplete")
        at, self.at = self.at, self.at + n
        return at

    def u32(self) -> int:
        """The next little-endian u32."""
        return int(_U32.unpack_from(self.view, self.take(4))[0])

    def u64(self) -> int:
        """The next little-endian u64."""
        return int(_U64.unpack_from(self.view, self.take(8))[0])

    def count(self, least: int, most: int, noun: str) -> int:
        """A u64 that announces so many things of at least `least` bytes each."""
        n = self.u64()
        if n > self.left // least:
            self.fail(f"announces {n} {noun}, more than the {self.left} bytes left can hold")
        if n > most:
            self.fail(f"announces {n} {noun}; at most {most} are read")
        return n

    def text(self) -> str:
        """The next string."""
        n = self.count(1, self.data.size, "bytes of text")
        at = self.take(n)
        try:
            return bytes(self.view[at : at + n]).decode()
        except UnicodeDecodeError:
            self.fail(f"is not valid UTF-8 ({bytes(self.view[at : at + min(n, 32)])!r})")

    def name(self) -> str:
        """A key or a tensor's name: short, not empty, no NUL."""
        text = self.text()
        if not text or len(text) > MAX_NAME or "\0" in text:
            self.fail(f"has a bad name ({len(text)} characters, {text[:32]!r})")
        return text


_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


def read_header(data: NDArray[np.uint8], file: str) -> Header:
    """Parse the header at the front of `data` (uint8, the whole file). Raises LoadError naming `file` and the fault."""
    cursor = Cursor(data, file)
    seed = bytes(cursor.view[:4]) == SEED_MAGIC
    cursor.at = 4
    version = _version(cursor)
    n_tensors, n_keys = cursor.u64(), cursor.u64()
    if n_tensors > min(MAX_TENSORS, cursor.left // 32):
        cursor.fail(f"announces {n_tensors} tensors, more than the file can hold")
    if n_keys > min(MAX_KEYS, cursor.left // 13):
        cursor.fail(f"announces {n_keys} metadata keys, more than the file can hold")
    metadata = _metadata(cursor, n_keys)
    alignment = _alignment(cursor, metadata)
    tensors = _tensors(cursor, n_tensors, rows_first=seed)
    data_start = -(-cursor.at // alignment) * alignment
    return Header(version, seed, metadata, tensors, alignment, data_start)


def _version(cursor: Cursor) -> int:
    version = cursor.u32()
    if version not in (2, 3):
        if version == 1:
            cursor.fail("is of GGUF version 1, which is no longer in use; convert the model again")
        if version and version & 0xFFFF == 0:
            cursor.fail("is big-endian; only little-endian GGUF files are read: convert the model again")
        cursor.fail(f"is of GGUF version {version}; versions 2 and 3 are read")
    return version


def _metadata(cursor: Cursor, n_keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for i in range(n_keys):
        cursor.where = f"metadata key {i}"
        key = cursor.name()
        cursor.where = f"metadata key {shorten(key)}"
        if key in metadata:
            cursor.fail("occurs twice")
        metadata[key] = _value(cursor, cursor.u32())
    return metadata


def _value(cursor: Cursor, kind: int) -> Any:
    if kind == STRING:
        return cursor.text()
    if kind == ARRAY:
        return _array(cursor)
    return _numbers(cursor, kind, 1)[0].item()


def _array(cursor: Cursor) -> StringArray | NDArray[Any]:
    kind = cursor.u32()
    if kind == ARRAY:
        cursor.fail("is an array of arrays, which no model needs and ternrun does not read")
    if kind != STRING:
        return _numbers(cursor, kind, cursor.u64())
    n = cursor.count(8, MAX_STRINGS, "strings")
    positions = walk(cursor.data, cursor.at, n)
    if positions is None:
        cursor.fail(f"announces {n} strings that run past the end of the file")
    cursor.at = int(positions[-1])
    return StringArray(cursor.data, positions, f"{cursor.file}: {cursor.where}")


def _numbers(cursor: Cursor, kind: int, n: int) -> NDArray[Any]:
    if kind not in NUMBERS:
        cursor.fail(f"has the unknown value type {kind}")
    dtype = NUMBERS[kind]
    at = cursor.take(n * dtype.itemsize)
    raw = cursor.data[at : cursor.at]
    if kind == BOOL and (raw > 1).any():
        cursor.fail("is a boolean that is neither 0 nor 1")
    return np.frombuffer(raw.tobytes(), dtype)


def _alignment(cursor: Cursor, metadata: dict[str, Any]) -> int:
    n = metadata.get("general.alignment", 32)
    cursor.where = "metadata key 'general.alignment'"
    if type(n) is not int or not 1 <= n <= MAX_ALIGNMENT or n & (n - 1):
        cursor.fail(f"must be a power of two up to {MAX_ALIGNMENT}, not {shorten(n)}")
    return n


def _tensors(cursor: Cursor, n_tensors: int, *, rows_first: bool) -> list[TensorInfo]:
    tensors: list[TensorInfo] = []
    seen: set[str] = set()
    for i in range(n_tensors):
        cursor.where = f"tensor {i}"
        name = cursor.name()
        cursor.where = f"tensor {shorten(name)}"
        if name in seen:
            cursor.fail("occurs twice")
        seen.add(name)
        shape = _shape(cursor)
        tensors.append(TensorInfo(name, cursor.u32(), shape if rows_first else shape[::-1], cursor.u64()))
    cursor.where = "header"
    return tensors


def _shape(cursor: Cursor) -> tuple[int, ...]:
    n_dims = cursor.u32()
    if not 1 <= n_dims <= 4:
        cursor.fail(f"has {n_dims} dimensions; 1 to 4 are possible")
    shape = tuple(cursor.u64() for _ in range(n_dims))
    if not 0 < prod(shape) <= MAX_ELEMENTS:
        cursor.fail(f"has the impossible shape {list(shape)}")
    return shape


def shorten(value: object) -> str:
    """The repr of something from a file, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-12:]}"
