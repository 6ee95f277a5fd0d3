"""Where the tensors of GGUF parts lie and what they are: offsets, spans and types checked against the file's size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.gguf.header import Header, TensorInfo, shorten
from ternrun.loader.gguf.types import Shape, fits, names_of, refusal, size_of

U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """`data`: the tensor's bytes, a read-only view of the mapped file; `shape` in numpy order, rows first.

    `type` is a key of `ENCODINGS`, or the name of a type that cannot be run (`checked` then raises); where the size
    of such a type is not known, `data` is all that lies between this tensor and the next.
    """

    name: str
    type: str
    shape: Shape
    data: U8
    file: str

    @property
    def refusal(self) -> str:
        """Why this tensor cannot be run and what to do about it; empty if it can."""
        return refusal(self.type)

    def checked(self) -> GGUFTensor:
        """This tensor; raises LoadError with the remedy if its type cannot be run."""
        if self.refusal:
            _fail(self.file, self.name, self.refusal)
        return self


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a model: its name for messages, its bytes and its header."""

    file: str
    data: U8
    header: Header


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor's byte range in its part: `span` bytes from `start` up to the next tensor or the end of the file."""

    part: Part
    info: TensorInfo
    start: int
    span: int
    last: bool

    def fits(self, name: str, *, sole: bool) -> bool:
        """Whether the tensor can be of this type. What follows the last tensor may be anything if its type is sure."""
        size = size_of(name, self.info.shape)
        tail = self.last and sole and size is not None and 0 <= size <= self.span
        return tail or fits(size, self.span, self.part.header.alignment)


def lay_out(parts: Sequence[Part]) -> dict[str, GGUFTensor]:
    """Tensors of all parts by name, in file order. Raises LoadError naming the tensor and the fault."""
    places = {p.info.name: p for part in parts for p in _places(part)}
    by_id: dict[int, list[_Place]] = defaultdict(list)
    for place in places.values():
        by_id[place.info.type_id].append(place)
    meaning = {i: _meaning(i, group) for i, group in by_id.items()}
    tensors: dict[str, GGUFTensor] = {}
    for part in parts:
        for info in part.header.tensors:
            if info.name in tensors:
                _fail(part.file, info.name, "occurs in two parts")
            tensors[info.name] = _tensor(places[info.name], meaning[info.type_id])
    return tensors


def _places(part: Part) -> list[_Place]:
    header = part.header
    order = sorted(header.tensors, key=lambda t: t.offset)
    if not order:
        return []
    _refuse_truncated(part, order[-1])
    ends = [t.offset for t in order[1:]] + [part.data.size - header.data_start]
    places = []
    for info, end in zip(order, ends, strict=True):
        if info.offset % header.alignment:
            _fail(part.file, info.name, f"starts at offset {info.offset}, not a multiple of {header.alignment}")
        if info.offset == end:
            _fail(part.file, info.name, f"starts at offset {info.offset}, where another tensor starts or the file ends")
        places.append(_Place(part, info, header.data_start + info.offset, end - info.offset, info is order[-1]))
    return places


def _refuse_truncated(part: Part, last: TensorInfo) -> None:
    sizes = [size_of(n, last.shape) for n in names_of(last.type_id, seed=part.header.seed)]
    least = min(1 if s is None or s < 1 else s for s in sizes)
    missing = part.header.data_start + last.offset + least - part.data.size
    if missing > 0:
        fault = f"ends {missing} bytes after the end of the file ({part.data.size} bytes)"
        _fail(part.file, last.name, f"{fault}: the download is incomplete or the file damaged")


def _meaning(type_id: int, group: Sequence[_Place]) -> str:
    """The one meaning of an id that fits every tensor which carries it, else the preferred one."""
    names = names_of(type_id, seed=group[0].part.header.seed)
    sole = len(names) == 1
    return next((n for n in names if all(p.fits(n, sole=sole) for p in group)), names[0])


def _tensor(place: _Place, name: str) -> GGUFTensor:
    part, info = place.part, place.info
    size = size_of(name, info.shape)
    if size == -1:
        _fail(part.file, info.name, f"of shape {list(info.shape)} does not divide into blocks of type {name}")
    sole = len(names_of(info.type_id, seed=part.header.seed)) == 1
    if not place.fits(name, sole=sole):
        fault = f"of shape {list(info.shape)} and type {name} takes {size} bytes, but has {place.span} before the next"
        _fail(part.file, info.name, fault)
    end = place.start + (place.span if size is None else size)
    return GGUFTensor(info.name, name, info.shape, part.data[place.start : end], part.file)


def _fail(file: str, tensor: str, fault: str) -> NoReturn:
    raise LoadError(f"{file}: tensor {shorten(tensor)} {fault}")
