"""The state of one symbolic run of a graph: its sources, its notes, and the work that remains allowed."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from ternrun.errors import LoadError
from ternrun.onnx.format.graph import Node
from ternrun.onnx.recognition.symbolic import Source

MAX_WORK = 1 << 28  # elements that one run may create


class UnrecognizedError(LoadError):
    """The graph is not a decoder that the engine can run; the message names the node that shows it."""


class Trace:
    """A run of `new` tokens that follow `past` cached ones.

    `cached` says whether keys and values of earlier tokens are inputs of the graph, `tables` is the number of rows of
    the longest angle table, and `notes` describes the parts of the graph that are left out.
    """

    def __init__(self, new: int, past: int, *, cached: bool) -> None:
        self.new, self.past, self.cached = new, past, cached
        self.sources: list[Source] = []
        self.notes: list[str] = []
        self.tables = 0
        self.node: Node | None = None  # the current node
        self.opsets: Mapping[str, int] = {}  # versions of the current node's operator sets
        self._next_id = self._work = 0

    def source(self, kind: str, shape: tuple[int, ...], **parts: Any) -> Source:
        """Create a source of this shape. Raises UnrecognizedError beyond MAX_WORK elements."""
        self.spend(prod(shape))
        source = Source(kind, shape, self._next_id, self.node, parts)
        self._next_id += source.size
        self.sources.append(source)
        return source

    def owner(self, element: int) -> Source:
        """The source that holds the element with this id."""
        low, high = 0, len(self.sources)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.sources[middle].base <= element else (low, middle)
        return self.sources[low]

    def unsupported(self, reason: str) -> UnrecognizedError:
        """The error that ends the run at the current node."""
        return UnrecognizedError(f"{self.node}: {reason}")

    def spend(self, elements: int) -> None:
        """Count created elements. Raises UnrecognizedError beyond MAX_WORK."""
        self._work += elements
        if self._work > MAX_WORK:
            raise self.unsupported("the graph is too large to be traced")
