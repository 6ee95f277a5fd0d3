"""The table of operators: (domain, op) -> the function that makes its kernel. Each module of this package adds rows.

A maker reads a node's attributes once and returns the kernel, which takes and returns arrays (None: an omitted input).
A node whose maker returns None, or whose operator has no row, runs on the onnx package's reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.format.graph import Node
from ternrun.onnx.format.tensors import OnnxTensor

Array = np.ndarray[Any, Any]
Kernel = Callable[..., Any]  # arrays -> an array, or a tuple of them
MICROSOFT = "com.microsoft"


@dataclass(frozen=True, slots=True)
class OpKernelInfo:
    """A node with resolved attributes and the version of its operator set."""

    node: Node
    opset: int
    reference: Callable[[], Kernel]  # the onnx package's kernel of this node
    constants: tuple[Any, ...] = ()  # values of constant inputs; None for other inputs

    def constant(self, at: int) -> Array | None:
        """The value of input number `at` if it is constant, or None."""
        value = self.constants[at] if at < len(self.constants) else None
        return value if isinstance(value, np.ndarray) else None

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The node's attributes."""
        return self.node.attributes

    def integer(self, name: str, default: int = 0) -> int:
        """An integer attribute. Raises LoadError for another type."""
        return cast(int, self._get(name, int, default))

    def number(self, name: str, default: float = 0.0) -> float:
        """A float attribute. Raises LoadError for another type, including integers."""
        return cast(float, self._get(name, float, default))

    def text(self, name: str, default: str = "") -> str:
        """A string attribute. Raises LoadError for another type."""
        return cast(str, self._get(name, str, default))

    def integers(self, name: str) -> tuple[int, ...] | None:
        """A list of integers, or None if it is absent. Raises LoadError for another type."""
        value = self.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(v, int) for v in value):
            raise LoadError(f"attribute {name!r} is not a list of integers")
        return tuple(value)

    def tensor(self, name: str) -> Array | None:
        """A tensor attribute as an array, or None if it is absent. Raises LoadError for another type."""
        value = self.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, OnnxTensor):
            raise LoadError(f"attribute {name!r} is not a tensor")
        return value.array()

    def _get(self, name: str, kind: type, default: Any) -> Any:
        value = self.attributes.get(name, default)
        if not isinstance(value, kind):
            raise LoadError(f"attribute {name!r} is {value!r:.40}, not of type {kind.__name__}")
        return value


Maker = Callable[[OpKernelInfo], Kernel | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One operator. `since` is the first opset that the maker supports; the reference runs older nodes."""

    make: Maker
    since: int = 1
    fresh: bool = False  # the results never share memory with inputs
    reuse: bool = False  # the kernel takes `out=`, which may be one of its inputs


TABLE: dict[tuple[str, str], Row] = {}


def operator(
    *ops: str, domains: tuple[str, ...] = ("",), since: int = 1, fresh: bool = False, reuse: bool = False
) -> Callable[[Maker], Maker]:
    """Add the decorated maker to the table under these names."""

    def add(make: Maker) -> Maker:
        for domain in domains:
            for op in ops:
                TABLE[domain, op] = Row(make, since, fresh or reuse, reuse)
        return make

    return add


def upcast_half(x: Array) -> Array:
    """Convert half types, which numpy computes slowly or not at all, to float32; other types are returned unchanged."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind in "fV" else x


def same_type(a: Array, b: Array) -> None:
    """Raises LoadError for operands of different types, which ONNX forbids and numpy would widen."""
    if a.dtype != b.dtype:
        raise LoadError(f"its inputs are of types {a.dtype} and {b.dtype}, which must be the same")
