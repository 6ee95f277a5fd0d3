"""Protobuf's wire format over mapped bytes: messages become dicts by a table of fields, nested messages stay spans.

The onnx package's parser would copy every weight before anything is checked. With spans, a weight inside the file is a
view of the map. Format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError

Span = tuple[int, int]  # the first byte, and the byte after the last
Fields = Mapping[int, tuple[str, str]]  # number -> (name, kind)

# kinds: i signed, u unsigned, f float32, s text, b span of bytes or of a nested message; with a star: a list of them
_EMPTY: dict[str, Any] = {"i": 0, "u": 0, "f": 0.0, "s": "", "b": None}
_WIRES = {"i": 0, "u": 0, "f": 5, "s": 2, "b": 2}
_SIZES = {1: 8, 5: 4}
MAX_FIELDS = 1 << 22
MAX_TEXT = 1 << 16


class Wire:
    """The bytes of one file, and the bounded number of fields that may still be read."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self._left = MAX_FIELDS

    def message(self, span: Span, fields: Fields, what: str) -> dict[str, Any]:
        """The fields of the message at `span`, by name.

        Missing fields are empty, and unknown fields are skipped. The last of several values counts. `what` names the
        message in errors. Raises LoadError for bytes that are not such a message.
        """
        found: dict[str, Any] = {n: [] if kind.endswith("*") else _EMPTY[kind] for n, kind in fields.values()}
        for number, wire, value in self._walk(span, what):
            if number not in fields:
                continue
            name, kind = fields[number]
            if kind.endswith("*"):
                found[name] += self._several(wire, value, kind[0], f"{what}, field {name}")
            elif kind == "b" and found[name] is not None:
                raise LoadError(f"{what}: field {name} is stated twice")
            else:
                found[name] = self._one(wire, value, kind, f"{what}, field {name}")
        return found

    def _walk(self, span: Span, what: str) -> Iterator[tuple[int, int, Any]]:
        """Yield (number, wire type, integer or span) of each field."""
        at, stop = span
        while at < stop:
            self._left -= 1
            if self._left < 0:
                raise LoadError(f"{what}: the file has more than {MAX_FIELDS} fields, which no model has")
            key, at = self._varint(at, stop, what)
            wire = key & 7
            if wire == 0:
                value, at = self._varint(at, stop, what)
                yield key >> 3, wire, value
                continue
            if wire not in (1, 2, 5) or not key >> 3:
                raise LoadError(f"{what}: byte {at - 1} does not begin a protobuf field; the file is damaged")
            size, at = self._varint(at, stop, what) if wire == 2 else (_SIZES[wire], at)
            if size > stop - at:
                raise self._cut(what, stop)
            yield key >> 3, wire, (at, at + size)
            at += size

    def _varint(self, at: int, stop: int, what: str) -> tuple[int, int]:
        value = shift = 0
        while at < stop and shift < 70:
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (1 << 64) - 1, at
            shift += 7
        raise self._cut(what, stop)

    def _cut(self, what: str, stop: int) -> LoadError:
        if stop == len(self.data):
            return LoadError(f"{what}: the file ends inside it, at byte {stop}; download it again")
        return LoadError(f"{what}: a field runs beyond its end at byte {stop}; the file is damaged")

    def _one(self, wire: int, value: Any, kind: str, what: str) -> Any:
        if wire != _WIRES[kind]:
            raise LoadError(f"{what} is of protobuf wire type {wire}, not {_WIRES[kind]}; the file is damaged")
        if kind == "i":
            return value - (1 << 64) if value >> 63 else value
        if kind == "f":
            return struct.unpack("<f", self.data[slice(*value)])[0]
        return self._text(value, what) if kind == "s" else value

    def _several(self, wire: int, value: Any, kind: str, what: str) -> list[Any]:
        """The elements that one occurrence of a repeated field adds. Numbers may be packed."""
        if wire != 2 or kind in "sb":
            return [self._one(wire, value, kind, what)]
        if kind == "f":
            return list(fixed(self.data[slice(*value)], "<f4", what).tolist())
        return list(varints(self.data[slice(*value)], what).view(np.int64 if kind == "i" else np.uint64).tolist())

    def _text(self, span: Span, what: str) -> str:
        if span[1] - span[0] > MAX_TEXT:
            raise LoadError(f"{what} has {span[1] - span[0]} bytes; at most {MAX_TEXT} can be text")
        try:
            return str(self.data[slice(*span)], "utf-8")
        except UnicodeDecodeError as e:
            raise LoadError(f"{what} is not UTF-8 text; the file is damaged") from e


def fixed(data: memoryview, dtype: str, what: str) -> NDArray[Any]:
    """Packed numbers of a fixed size, as a view."""
    if len(data) % np.dtype(dtype).itemsize:
        raise LoadError(f"{what} has {len(data)} bytes, which is not a multiple of {np.dtype(dtype).itemsize}")
    return np.frombuffer(data, dtype)


def varints(data: memoryview, what: str) -> NDArray[np.uint64]:
    """Decode packed varints to 64-bit numbers; negative numbers are in two's complement."""
    raw = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(raw < 128)
    lengths = np.diff(last, prepend=-1)
    if raw.size and (not last.size or last[-1] != raw.size - 1 or lengths.max() > 10):
        raise LoadError(f"{what} does not hold whole varints; the file is damaged")
    values = np.zeros(last.size, np.uint64)
    for i in range(int(lengths.max(initial=0))):  # the i-th byte of all numbers that have one
        has = lengths > i
        byte = raw[(last - lengths + 1 + i)[has]] & 127
        values[has] |= byte.astype(np.uint64) << np.uint64(7 * i)
    return values
