"""The contents of an ONNX file as plain records: graphs of nodes, lazily read tensors, named values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ternrun.onnx.format.tensors import OnnxTensor


@dataclass(frozen=True, slots=True)
class Reference:
    """An attribute inside a function whose value is the attribute `name` of the calling node."""

    name: str


@dataclass(frozen=True, slots=True)
class Value:
    """A graph's input or output. `kind` is tensor, sequence, optional, map or unknown.

    `shape` has a number, a symbol or None (any size) for each dimension; it is None for an unstated rank.
    """

    name: str
    dtype: str = ""  # of a tensor, or of the tensors in a sequence; "": unstated
    shape: tuple[int | str | None, ...] | None = None
    kind: str = "tensor"


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator. An empty name in `inputs` or `outputs` marks an omitted value.

    Attributes are int, float, str, an OnnxTensor, a Graph, a Reference, a Value (of a type), or lists of one of these.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    domain: str = ""  # "" is ONNX's own
    overload: str = ""
    proto: bytes | memoryview = b""  # the NodeProto of the file; empty for a node created in code

    def __str__(self) -> str:
        """The node's name and operator, for messages."""
        label = self.name or (self.outputs[0] if self.outputs else "")
        return f"node {label[:80]!r} ({f'{self.domain}.' if self.domain else ''}{self.op})"


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A graph. `nodes` are in topological order, which is checked when the file opens."""

    name: str
    nodes: tuple[Node, ...]
    initializers: Mapping[str, OnnxTensor]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """An operator that the file defines by other operators. `attributes` are the names that a call may set."""

    domain: str
    name: str
    overload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]
    defaults: Mapping[str, Any]
    nodes: tuple[Node, ...]
    opsets: Mapping[str, int]

    @property
    def key(self) -> tuple[str, str, str]:
        """(domain, op, overload), as a calling node names them."""
        return self.domain, self.name, self.overload


@dataclass(frozen=True, slots=True, eq=False)
class OnnxModel:
    """A checked file. `opsets` maps each operator domain to its version ("" is ONNX's own domain)."""

    graph: Graph
    functions: Mapping[tuple[str, str, str], Function]
    opsets: Mapping[str, int]
    ir_version: int
    producer: str
    metadata: Mapping[str, str]
    size: int  # bytes of the file and of its data files
