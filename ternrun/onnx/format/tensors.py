"""TensorProto as a lazily read tensor: its size is checked when the file opens, and its bytes stay in the map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError, MissingExtra
from ternrun.onnx.format.wire import Fields, Span, Wire, fixed, varints

MAX_DIMS = 64  # numpy's limit
MAX_ELEMENTS = 1 << 48


class DType(NamedTuple):
    """One of ONNX's element types: its bits in raw_data, numpy's name, and the typed field for its elements."""

    name: str
    bits: int
    numpy: str | None  # None: numpy has no such type
    field: str
    storage: str = ""  # numpy type that the numbers in `field` are stored as; "": the same as `numpy`


_I32, _U64 = "int32_data", "uint64_data"
DTYPES: dict[int, DType] = {
    1: DType("FLOAT", 32, "<f4", "float_data"), 2: DType("UINT8", 8, "u1", _I32), 3: DType("INT8", 8, "i1", _I32),
    4: DType("UINT16", 16, "<u2", _I32), 5: DType("INT16", 16, "<i2", _I32), 6: DType("INT32", 32, "<i4", _I32),
    7: DType("INT64", 64, "<i8", "int64_data"), 8: DType("STRING", 0, "O", "string_data"),
    9: DType("BOOL", 8, "?", _I32), 10: DType("FLOAT16", 16, "<f2", _I32, "<u2"),
    11: DType("DOUBLE", 64, "<f8", "double_data"), 12: DType("UINT32", 32, "<u4", _U64),
    13: DType("UINT64", 64, "<u8", _U64), 14: DType("COMPLEX64", 64, "<c8", "float_data"),
    15: DType("COMPLEX128", 128, "<c16", "double_data"), 16: DType("BFLOAT16", 16, None, _I32, "<u2"),
    17: DType("FLOAT8E4M3FN", 8, None, _I32, "u1"), 18: DType("FLOAT8E4M3FNUZ", 8, None, _I32, "u1"),
    19: DType("FLOAT8E5M2", 8, None, _I32, "u1"), 20: DType("FLOAT8E5M2FNUZ", 8, None, _I32, "u1"),
    21: DType("UINT4", 4, None, _I32, "u1"), 22: DType("INT4", 4, None, _I32, "u1"),
    23: DType("FLOAT4E2M1", 4, None, _I32, "u1"), 24: DType("FLOAT8E8M0", 8, None, _I32, "u1"),
    25: DType("UINT2", 2, None, _I32, "u1"), 26: DType("INT2", 2, None, _I32, "u1"),
    27: DType("FLOAT6E2M3", 6, None, "raw_data"), 28: DType("FLOAT6E3M2", 6, None, "raw_data"),
}  # fmt: skip
CODES = {dtype.name: code for code, dtype in DTYPES.items()}

TENSOR: Fields = {
    1: ("dims", "i*"), 2: ("data_type", "i"), 3: ("segment", "b"), 4: ("float_data", "b*"), 5: (_I32, "b*"),
    6: ("string_data", "b*"), 7: ("int64_data", "b*"), 8: ("name", "s"), 9: ("raw_data", "b"),
    10: ("double_data", "b*"), 11: (_U64, "b*"), 13: ("external_data", "b*"), 14: ("data_location", "i"),
}  # fmt: skip
_ENTRY: Fields = {1: ("key", "s"), 2: ("value", "s")}
_TYPED = ("float_data", _I32, "int64_data", "string_data", "double_data", _U64)

External = Callable[[dict[str, str], int, str], NDArray[np.uint8]]  # stated entries, bytes wanted, what -> its bytes


@dataclass(frozen=True, slots=True, eq=False)
class OnnxTensor:
    """An initializer or a constant. `data` are its bytes as in raw_data, a view of the map if possible.

    Elements are little-endian and row-major. Types of 2 and 4 bits are packed from the low bits up, across row ends.
    """

    name: str
    dtype: str  # a name of ONNX: FLOAT, BFLOAT16, INT4...
    shape: tuple[int, ...]
    data: NDArray[np.uint8]
    strings: tuple[bytes, ...] = ()  # the elements of type STRING

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored elements."""
        return int(self.data.size)

    def array(self) -> NDArray[Any]:
        """The elements as an array, like onnx.numpy_helper.to_array; a read-only view for numpy's own types.

        Raises MissingExtra for a type that needs the onnx package (BFLOAT16, INT4...).
        """
        kind = DTYPES[CODES[self.dtype]].numpy
        if self.dtype == "STRING":
            texts = [s.decode("utf-8", "replace") for s in self.strings]
            return np.array(texts, dtype=object).reshape(self.shape)
        if kind is not None:
            return self.data.view(kind).reshape(self.shape)
        try:
            from onnx import TensorProto, numpy_helper
        except ImportError as e:
            raise MissingExtra(f"an ONNX tensor of type {self.dtype}", "onnx") from e
        proto = TensorProto(dims=self.shape, data_type=CODES[self.dtype], raw_data=self.data.tobytes())
        values: NDArray[Any] = numpy_helper.to_array(proto)
        return values

    def integers(self) -> NDArray[np.int8] | NDArray[np.uint8]:
        """The elements of an integer type of 2, 4 or 8 bits, one a byte. Raises LoadError for another type."""
        bits = DTYPES[CODES[self.dtype]].bits
        if self.dtype not in ("INT2", "UINT2", "INT4", "UINT4", "INT8", "UINT8"):
            raise LoadError(f"tensor {self.name[:80]!r} is of type {self.dtype}, not of small integers")
        fields = unpack(self.data, bits)[: self.size].reshape(self.shape)
        if self.dtype.startswith("U"):
            return fields
        return (fields << (8 - bits)).view(np.int8) >> (8 - bits)


def unpack(data: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Unpack fields of 2, 4 or 8 bits, from the low bits up, to one a byte; the last axis grows."""
    if bits == 8:
        return data
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    fields = data[..., None] >> shifts & np.uint8((1 << bits) - 1)
    return fields.reshape(*data.shape[:-1], -1)


def read_tensor(wire: Wire, span: Span, external: External, what: str) -> OnnxTensor:
    """Read and check one TensorProto. Raises LoadError naming the tensor for an invalid type, shape or size."""
    proto = wire.message(span, TENSOR, what)
    name = proto["name"]
    if name:
        what = f"tensor {name[:80]!r}"
    if proto["segment"] is not None:
        raise LoadError(f"{what} comes in segments, which is not supported")
    dtype = DTYPES.get(proto["data_type"])
    if dtype is None:
        raise LoadError(f"{what} is of data type {proto['data_type']}, which is not one of ONNX's")
    shape = tuple(proto["dims"])
    if len(shape) > MAX_DIMS or any(n < 0 for n in shape) or prod(n or 1 for n in shape) > MAX_ELEMENTS:
        raise LoadError(f"{what} has an impossible shape {str(list(shape))[:80]}")
    if dtype.name == "STRING":
        return _strings(wire, proto, shape, what)
    wanted = (prod(shape) * dtype.bits + 7) // 8
    data = _bytes(wire, proto, dtype, wanted, external, what)
    if data.size != wanted:
        raise LoadError(
            f"{what} of shape {list(shape)} and type {dtype.name} asks for {wanted} bytes and has {data.size}"
        )
    return OnnxTensor(name, dtype.name, shape, data)


def _strings(wire: Wire, proto: dict[str, Any], shape: tuple[int, ...], what: str) -> OnnxTensor:
    """A tensor of type STRING."""
    spans = proto["string_data"]
    if len(spans) != prod(shape):
        raise LoadError(f"{what} of shape {list(shape)} has {len(spans)} strings")
    strings = tuple(bytes(wire.data[slice(*s)]) for s in spans)
    return OnnxTensor(proto["name"], "STRING", shape, np.empty(0, np.uint8), strings)


def _bytes(
    wire: Wire, proto: dict[str, Any], dtype: DType, wanted: int, external: External, what: str
) -> NDArray[np.uint8]:
    """The tensor's bytes from the single place that holds them."""
    places = [f for f in _TYPED if proto[f]] + ["raw_data"] * (proto["raw_data"] is not None)
    if proto["data_location"] == 1:
        if any(f != "raw_data" or proto["raw_data"][0] != proto["raw_data"][1] for f in places):
            raise LoadError(f"{what} states its data twice, here and in another file")
        entries = [wire.message(s, _ENTRY, what) for s in proto["external_data"]]
        return external({e["key"]: e["value"] for e in entries}, wanted, what)
    if len(places) > 1:
        raise LoadError(f"{what} states its data twice, in {places[0]} and {places[1]}")
    if not places:
        return np.empty(0, np.uint8)
    if places == ["raw_data"]:
        return np.frombuffer(wire.data[slice(*proto["raw_data"])], np.uint8)
    return _typed(wire, proto[places[0]], places[0], dtype, what)


def _typed(wire: Wire, spans: list[Span], field: str, dtype: DType, what: str) -> NDArray[np.uint8]:
    """The bytes of a tensor whose elements are in a typed field."""
    if field != dtype.field:
        raise LoadError(f"{what} of type {dtype.name} has its data in {field}, not in {dtype.field}")
    chunks = [wire.data[slice(*s)] for s in spans]
    if field in ("float_data", "double_data"):
        parts = [fixed(c, "<f4" if field == "float_data" else "<f8", what).view(np.uint8) for c in chunks]
    else:
        kind = dtype.storage or dtype.numpy or "u1"
        parts = [varints(c, what).astype(kind, casting="unsafe").view(np.uint8) for c in chunks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
