"""Check that a graph can run: every value is produced once and before it is read, and functions terminate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ternrun.errors import LoadError
from ternrun.onnx.format.graph import Function, Graph, Node, OnnxModel

MAX_CALLED = 1 << 20  # nodes after every function call is inlined

Key = tuple[str, str, str]


def check_model(model: OnnxModel) -> None:
    """Raises LoadError naming the node at fault, or the function that does not terminate or grows without bound."""
    _check_graph(model.graph, frozenset())
    for function in model.functions.values():
        if len(set(function.inputs)) != len(function.inputs):
            raise LoadError(f"function {function.name[:80]!r} names an input twice")
        _check_nodes(function.nodes, set(function.inputs), function.outputs, f"function {function.name[:80]!r}")
    _bound_calls(model)


def subgraphs(node: Node) -> list[Graph]:
    """The graphs among a node's attributes (If, Loop, Scan)."""
    values: list[Any] = []
    for value in node.attributes.values():
        values += value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, Graph)]


def _check_graph(graph: Graph, outer: frozenset[str]) -> None:
    """Check a graph; `outer` are the names of the graphs around it."""
    names = [v.name for v in graph.inputs]
    if len(set(names)) != len(names) or "" in names:
        raise LoadError(f"graph {graph.name[:80]!r} has an unnamed input, or two inputs of one name")
    own = set(names) | set(graph.initializers)
    outputs = [v.name for v in graph.outputs]
    _check_nodes(graph.nodes, own | outer, outputs, f"graph {graph.name[:80]!r}", own)


def _check_nodes(
    nodes: Iterable[Node], known: set[str], outputs: Iterable[str], what: str, own: set[str] | None = None
) -> None:
    """Check nodes in order. `known` are names that can be read; `own` must not be produced again.

    A subgraph may reuse a name of the graph around it.
    """
    made = set(known if own is None else own)
    for node in nodes:
        for name in node.inputs:
            if name and name not in known:
                raise LoadError(f"{node} reads {name[:80]!r}, which no earlier node produces")
        for graph in subgraphs(node):
            _check_graph(graph, frozenset(known))
        for name in node.outputs:
            if name and name in made:
                raise LoadError(f"{node} produces {name[:80]!r}, which already exists")
            made.add(name)
        known.update(node.outputs)
    known.discard("")
    for name in outputs:
        if name not in known:
            raise LoadError(f"{what} returns {name[:80]!r}, which no node produces")


def _bound_calls(model: OnnxModel) -> None:
    """Refuse functions that call themselves, and graphs of more than MAX_CALLED nodes including calls."""
    sizes: dict[Key, int] = {}
    open_calls: list[tuple[Key, Iterator[Key]]] = []

    def enter(key: Key) -> None:
        if any(key == k for k, _ in open_calls):
            raise LoadError(f"function {key[1][:80]!r} calls itself")
        open_calls.append((key, iter(_calls(model.functions[key].nodes, model.functions))))

    for root in model.functions:
        if root not in sizes:
            enter(root)
        while open_calls:
            key, calls = open_calls[-1]
            callee = next((c for c in calls if c not in sizes), None)
            if callee is not None:
                enter(callee)
                continue
            sizes[key] = _size(model.functions[key].nodes, model.functions, sizes)
            open_calls.pop()
    if _size(model.graph.nodes, model.functions, sizes) > MAX_CALLED:
        raise LoadError(f"the graph calls functions of more than {MAX_CALLED} nodes in all")


def _calls(nodes: Iterable[Node], functions: Mapping[Key, Function]) -> list[Key]:
    """The keys of the functions that nodes call."""
    keys = []
    for node in nodes:
        if (key := (node.domain, node.op, node.overload)) in functions:
            keys.append(key)
        for graph in subgraphs(node):
            keys += _calls(graph.nodes, functions)
    return keys


def _size(nodes: Iterable[Node], functions: Mapping[Key, Function], sizes: Mapping[Key, int]) -> int:
    """The number of nodes, including those of called functions and subgraphs."""
    total = 0
    for node in nodes:
        total += 1 + sizes.get((node.domain, node.op, node.overload), 0)
        for graph in subgraphs(node):
            total += _size(graph.nodes, functions, sizes)
    return total
