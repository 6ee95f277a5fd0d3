"""Read safetensors files and the sharded folders they come in, without copying: every byte range is checked first.

Format: https://github.com/huggingface/safetensors#format. As its own library does, ternrun asks that the tensors fill
the data section without gap or overlap.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.json_files import parse_json, read_json

DTYPES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
MAX_HEADER = 1 << 24
MAX_TENSORS = 1 << 16
WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class RawTensor:
    """`data`: its bytes, a read-only view of the mapped file; `shape` as stored, rows first."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


def open_folder(folder: Path) -> dict[str, RawTensor]:
    """All tensors of a model folder: its index's shards, or `model.safetensors`, or the one safetensors file it has.

    Raises LoadError naming the file at fault.
    """
    tensors: dict[str, RawTensor] = {}
    weight_map = _weight_map(folder)
    for file in sorted(set(weight_map.values())) or [_only_file(folder)]:
        for name, tensor in open_file(folder / file).items():
            if name in tensors:
                raise LoadError(f"{folder}: tensor {name[:80]!r} is in more than one file")
            tensors[name] = tensor
    for name, file in weight_map.items():
        if name not in tensors:
            raise LoadError(f"{folder / file}: tensor {name[:80]!r}, which {INDEX} promises, is missing")
    return tensors


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor -> file of a sharded model; empty if it is not sharded, or was made one file since its index."""
    if not (folder / INDEX).is_file():
        return {}
    listed = read_json(folder / INDEX).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(f, str) for f in listed.values()):
        raise LoadError(f"{folder / INDEX} has no usable weight_map")
    for file in set(listed.values()):
        if not file.endswith(".safetensors") or any(c in file for c in "/\\:\0") or file.startswith("."):
            raise LoadError(f"{folder / INDEX} names {file[:80]!r}, which is not a safetensors file of this folder")
    if (folder / WHOLE).is_file() and not any((folder / file).exists() for file in listed.values()):
        return {}
    return listed


def _only_file(folder: Path) -> str:
    files = sorted(p.name for p in folder.glob("*.safetensors"))
    if WHOLE in files:
        return WHOLE
    if len(files) != 1:
        raise LoadError(f"{folder} holds {len(files)} safetensors files and no {INDEX} that says what is where")
    return files[0]


def open_file(path: Path) -> dict[str, RawTensor]:
    """The tensors of one file. Raises LoadError for anything that is not a sound safetensors file."""
    try:
        if not path.is_file():
            raise LoadError(f"{path} does not exist or is not a file")
        with path.open("rb") as f:
            if not path.stat().st_size:
                raise LoadError(f"{path} is empty (0 bytes); download it again")
            data = np.frombuffer(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except (OSError, ValueError) as e:
        raise LoadError(f"{path} cannot be read: {e}") from e
    return parse(data, str(path))


def parse(data: NDArray[np.uint8], where: str) -> dict[str, RawTensor]:
    """The tensors of a file's bytes; `where` names it in messages."""
    if data.size < 8:
        raise LoadError(f"{where} has only {data.size} bytes; download it again")
    length = int(struct.unpack("<Q", data[:8].tobytes())[0])
    if data[:20].tobytes().startswith(b"version https://git-"):
        raise LoadError(f"{where} is a Git LFS pointer, not the model; fetch the file itself with 'git lfs pull'")
    if not 2 <= length <= min(data.size - 8, MAX_HEADER):
        raise LoadError(f"{where} is not a sound safetensors file: a header of {length} bytes cannot be")
    entries = _header(data[8 : 8 + length].tobytes(), where)
    body = data[8 + length :]
    tensors, end = {}, 0
    for begin, stop, name, dtype, shape in sorted(_entry(name, entry, where) for name, entry in entries.items()):
        if begin != end:
            fault = "overlaps another one" if begin < end else "leaves a gap before it"
            raise LoadError(f"{where}: tensor {name[:80]!r} {fault}; the file is damaged")
        if stop > body.size:
            raise LoadError(f"{where} ends at byte {data.size}, inside tensor {name[:80]!r}; download it again")
        tensors[name] = RawTensor(name, dtype, shape, body[begin:stop])
        end = stop
    if end != body.size:
        raise LoadError(f"{where} has {body.size - end} bytes after its last tensor; the file is damaged")
    return tensors


def _header(text: bytes, where: str) -> dict[str, Any]:
    braces = text.count(b"{")
    if braces > MAX_TENSORS or text.count(b"[") > 2 * braces:
        raise LoadError(f"{where} is not a sound safetensors file: its header is not a table of tensors")
    entries = parse_json(text, where)
    note = entries.pop("__metadata__", {})
    if not isinstance(note, dict):
        raise LoadError(f"{where}: its __metadata__ is not a table")
    return entries


def _entry(name: str, entry: Any, where: str) -> tuple[int, int, str, str, tuple[int, ...]]:
    """One line of the header as (begin, end, name, dtype, shape)."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise LoadError(f"{where}: the entry of tensor {name[:80]!r} is not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise LoadError(f"{where}: tensor {name[:80]!r} has the dtype {str(dtype)[:40]!r}, which is not supported")
    if not _numbers(shape, 8) or not _numbers(offsets, 2) or len(offsets) != 2 or prod(shape) > 1 << 48:
        raise LoadError(f"{where}: tensor {name[:80]!r} has an impossible shape or offsets")
    if offsets[1] - offsets[0] != prod(shape) * DTYPES[dtype]:
        raise LoadError(f"{where}: tensor {name[:80]!r} of shape {shape} and dtype {dtype} does not fill its bytes")
    return offsets[0], offsets[1], name, dtype, tuple(shape)


def _numbers(values: Any, most: int) -> bool:
    return isinstance(values, list) and len(values) <= most and all(type(v) is int and 0 <= v < 1 << 63 for v in values)
