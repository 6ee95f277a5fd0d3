"""Write GGUF files, version 3: what `ternrun convert` makes. Own code, since it writes types the gguf package lacks."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import UsageError
from ternrun.files import replacing
from ternrun.loader.gguf.header import ARRAY, NUMBERS, STRING
from ternrun.loader.gguf.open_file import parts_named
from ternrun.loader.gguf.types import TYPE_IDS
from ternrun.runtime.encodings import nbytes

_KINDS = {dtype: kind for kind, dtype in NUMBERS.items()}


class Writable(Protocol):
    """What is written of a tensor: `GGUFTensor` and `runtime.weights.Tensor` are such.

    `data` is read once, when its turn comes, so it may be a property that computes the bytes then.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def type(self) -> str: ...  # noqa: D102
    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def data(self) -> NDArray[np.uint8]: ...  # noqa: D102


def write_gguf(path: str | Path, metadata: Mapping[str, Any], tensors: Sequence[Writable]) -> None:
    """Write a GGUF file; it appears under its name only when complete.

    Metadata values: bool, int (the first of u32, i32, i64, u64 that holds it), float (f32, or f64 if too
    large), str; numpy scalars and
    arrays (their own type); sequences of str, bool, int (i32 first) or float.
    Tensor types: keys of `TYPE_IDS` that are in `ENCODINGS`.
    Raises UsageError for a value or tensor that GGUF cannot hold, and for the name of a part where the metadata do not
    say that it is one: nobody could open it.
    """
    path = Path(path)
    parts = parts_named(path)
    if parts > 1 and metadata.get("split.count") != parts:
        raise UsageError(
            f"{path} is named as one of {parts} parts of a model, but would hold all of it; name it otherwise"
        )
    alignment = int(metadata.get("general.alignment", 32))
    head = [b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    head += [_text(key) + _value(key, value) for key, value in metadata.items()]
    sizes = [_size(t) for t in tensors]
    offset = 0
    for tensor, size in zip(tensors, sizes, strict=True):
        dims = tensor.shape[::-1]
        line = struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, TYPE_IDS[tensor.type], offset)
        head.append(_text(tensor.name) + line)
        offset += size + -size % alignment
    with replacing(path) as beside, beside.open("wb") as f:
        _write_padded(f, b"".join(head), alignment)
        for tensor, size in zip(tensors, sizes, strict=True):
            data = np.ascontiguousarray(tensor.data)
            if data.nbytes != size:
                raise UsageError(f"tensor {tensor.name!r} should have {size} bytes, but has {data.nbytes}")
            _write_padded(f, data.data, alignment)


def _write_padded(f: BinaryIO, data: bytes | memoryview, alignment: int) -> None:
    f.write(data)
    f.write(bytes(-len(data) % alignment))


def _size(tensor: Writable) -> int:
    if tensor.type not in TYPE_IDS:
        raise UsageError(f"tensor {tensor.name!r}: a GGUF file cannot hold type {tensor.type}")
    size = nbytes(tensor.type, tensor.shape)
    if size is None or not 1 <= len(tensor.shape) <= 4:
        raise UsageError(f"tensor {tensor.name!r} of shape {list(tensor.shape)} cannot be of type {tensor.type}")
    return size


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(key: str, value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if isinstance(value, Sequence) and all(isinstance(v, str) for v in value):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_text, value))
    array = _numbers(key, value)
    kind = struct.pack("<I", _KINDS[array.dtype])
    if array.ndim:
        kind = struct.pack("<I", ARRAY) + kind + struct.pack("<Q", array.size)
    return kind + array.tobytes()


def _numbers(key: str, value: Any) -> NDArray[Any]:
    """A scalar or one-dimensional array of one of GGUF's number types."""
    array = np.asarray(value)
    if not isinstance(value, (np.generic, np.ndarray)):
        if array.dtype == np.float64:
            with np.errstate(over="ignore"):
                narrow = array.astype(np.float32)
            array = narrow if (np.isfinite(narrow) == np.isfinite(array)).all() else array
        elif array.dtype.kind in "iu" and array.size:
            low, high = int(array.min()), int(array.max())
            types = (np.int32, np.uint32) if array.ndim else (np.uint32, np.int32)
            fitting = (t for t in (*types, np.int64, np.uint64) if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
            array = array.astype(next(fitting))
    if array.ndim > 1 or array.dtype not in _KINDS:
        raise UsageError(f"metadata key {key!r} has a value that GGUF cannot hold ({type(value).__name__})")
    return array
