"""Open GGUF files: every byte range is checked, then metadata and tensors are handed out without copying weights.

Own code, since a hostile file must end in a `LoadError` and a 128,256-token vocabulary must parse in milliseconds.
A tensor whose type cannot be run is listed like any other; `GGUFTensor.checked()` refuses it with the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.gguf.header import read_header
from ternrun.loader.gguf.layout import GGUFTensor, Part, lay_out
from ternrun.loader.gguf.open_file import map_file, part_paths
from ternrun.loader.gguf.strings import StringArray
from ternrun.loader.gguf.write import write_gguf

__all__ = ["GGUFFile", "GGUFTensor", "StringArray", "open_gguf", "read_gguf", "write_gguf"]


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """A whole model: one file, or all parts of a split one (then with the first part's metadata).

    Metadata values are int, float, bool, str, a numpy array, or a `StringArray` (decoded on demand).
    """

    version: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]
    size: int  # bytes of all parts
    paths: tuple[Path, ...]


def open_gguf(path: str | Path) -> GGUFFile:
    """Map and check a GGUF file, or all parts of a split one, whichever part is named.

    Raises LoadError: one sentence that names the file, the key or tensor, and the fault.
    """
    return read_gguf([(str(p), map_file(p)) for p in part_paths(Path(path))])


def read_gguf(files: Sequence[tuple[str, NDArray[np.uint8]]]) -> GGUFFile:
    """The same, from (path, bytes) of every part in order."""
    parts = [Part(file, data, read_header(data, file)) for file, data in files]
    _check_split(parts)
    return GGUFFile(
        version=parts[0].header.version,
        metadata=parts[0].header.metadata,
        tensors=lay_out(parts),
        size=sum(p.data.size for p in parts),
        paths=tuple(Path(p.file) for p in parts),
    )


def _check_split(parts: Sequence[Part]) -> None:
    """The split.* keys must agree with the files' names, by which the parts were found."""
    for i, part in enumerate(parts):
        keys = part.header.metadata
        number, total = keys.get("split.no", 0), keys.get("split.count", 1)
        alone = len(parts) == 1 and _is(total, 0)
        if not (_is(number, i) and (_is(total, len(parts)) or alone)):
            raise LoadError(
                f"{part.file}: keys split.no and split.count say part {repr(number)[:60]} (from 0) of "
                f"{repr(total)[:60]}, but by its name it is part {i} of {len(parts)}; "
                "keep the names NAME-00001-of-0000N.gguf"
            )
    announced = parts[0].header.metadata.get("split.tensors.count")
    present = sum(len(p.header.tensors) for p in parts)
    if announced is not None and not _is(announced, present):
        told = repr(announced)[:60]
        raise LoadError(f"{parts[0].file}: key split.tensors.count says {told}, but the parts hold {present}")


def _is(value: Any, number: int) -> bool:
    """Whether a metadata value is that whole number: it may be an array, which is not simply equal or different."""
    return type(value) is int and value == number
