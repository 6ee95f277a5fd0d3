"""GGUF files byte by byte, lies included: every count, length, type and offset can be set to anything.

The positions of all numbers are recorded, so that a fuzzer knows where to hit.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KINDS = {
    "u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"), "i32": (5, "i"),
    "f32": (6, "f"), "bool": (7, "?"), "string": (8, ""), "u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d"),
}  # fmt: skip


@dataclass
class Bytes:
    """Bytes so far, and (position, width) of the numbers among them."""

    data: bytearray = field(default_factory=bytearray)
    numbers: list[tuple[int, int]] = field(default_factory=list)

    def number(self, form: str, value: Any) -> None:
        raw = struct.pack(f"<{form}", value)
        self.numbers.append((len(self.data), len(raw)))
        self.data += raw

    def text(self, text: str | bytes, length: int | None = None) -> None:
        raw = text.encode() if isinstance(text, str) else text
        self.number("Q", len(raw) if length is None else length)
        self.data += raw


@dataclass(frozen=True)
class Tensor:
    """One line of the tensor table and its bytes; offset None: where it comes to lie."""

    name: str | bytes
    dims: tuple[int, ...]  # as in the file
    type_id: int
    data: bytes
    offset: int | None = None
    n_dims: int | None = None


@dataclass(frozen=True)
class Array:
    """An array value: `kind` of its elements, `count` as announced."""

    kind: str | int
    values: tuple[Any, ...] | np.ndarray
    count: int | None = None


def noise(n: int) -> bytes:
    """n random bytes, the same in every run."""
    return np.random.default_rng(n).integers(0, 256, n, dtype=np.uint8).tobytes()


def f32(name: str = "a", n: int = 32, offset: int | None = None) -> Tensor:
    """An F32 vector."""
    return Tensor(name, (n,), 0, noise(4 * n), offset)


def _value(out: Bytes, kind: str | int, value: Any) -> None:
    code, form = KINDS[kind] if isinstance(kind, str) else (kind, "I")
    if isinstance(value, Array):
        inner, form = KINDS[value.kind] if isinstance(value.kind, str) else (value.kind, "I")
        out.number("I", 9)
        out.number("I", inner)
        out.number("Q", len(value.values) if value.count is None else value.count)
        for v in value.values:
            out.text(v) if inner == 8 else out.data.extend(struct.pack(f"<{form}", v))
        return
    out.number("I", code)
    out.text(value) if code == 8 else out.number(form, value)


def gguf(
    metadata: dict[str | bytes, tuple[str | int, Any]] | list[tuple[str | bytes, tuple[str | int, Any]]],
    tensors: list[Tensor] = (),  # type: ignore[assignment]
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_keys: int | None = None,
    alignment: int = 32,
    pad_end: bool = True,
) -> Bytes:
    """A file: metadata as key -> (kind, value or Array), a list for duplicate keys."""
    pairs = list(metadata.items()) if isinstance(metadata, dict) else metadata
    out = Bytes(bytearray(magic))
    out.number("I", version)
    out.number("Q", len(tensors) if n_tensors is None else n_tensors)
    out.number("Q", len(pairs) if n_keys is None else n_keys)
    for key, (kind, value) in pairs:
        out.text(key)
        _value(out, kind, value)
    offset = 0
    for t in tensors:
        out.text(t.name)
        out.number("I", len(t.dims) if t.n_dims is None else t.n_dims)
        for d in t.dims:
            out.number("Q", d)
        out.number("I", t.type_id)
        out.number("Q", offset if t.offset is None else t.offset)
        offset += len(t.data) + -len(t.data) % alignment
    for i, t in enumerate(tensors):
        out.data += bytes(-len(out.data) % alignment) + t.data
        if pad_end and i == len(tensors) - 1:
            out.data += bytes(-len(out.data) % alignment)
    return out
