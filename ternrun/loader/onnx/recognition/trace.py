"""Run a graph once at a small size, some tokens after some cached ones: numbers where known, forms elsewhere.

What only depends on shapes, positions and masks comes out as numbers, whatever operators an exporter used for it; what
depends on the tokens comes out as the sources and forms of `forms.py`, from which `decoder.py` reads the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.loader.onnx.graph import Function, Graph, Node, OnnxModel, Reference, Value
from ternrun.loader.onnx.recognition.forms import Form, Source
from ternrun.loader.onnx.recognition.known import OPERATORS
from ternrun.loader.onnx.recognition.pointwise import UnrecognisedError
from ternrun.loader.onnx.recognition.rules import RULES, WEIGHT_RULES
from ternrun.loader.onnx.recognition.weights import Weight
from ternrun.loader.onnx.tensors import DTYPES, OnnxTensor

_COMPARING = ("Add", "Sub", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
MAX_WORK = 1 << 28  # elements made in all
FAULTS = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, ArithmeticError, RecursionError)
_SEVERAL = 64  # elements from which on a matrix counts as a weight


class Trace:
    """`values` holds, by name, numpy arrays, `Weight`s and `Form`s, of `new` tokens that follow `past` cached ones."""

    def __init__(self, model: OnnxModel, new: int, past: int) -> None:
        self.model = model
        self.cached = is_cached(model)
        self.new, self.past = new, past
        self.sources: list[Source] = []
        self.notes: list[str] = []  # what of the graph is left out, in words
        self.tables = 0  # rows of the longest table of angles
        self.node: Node | None = None
        self._next = self._work = 0
        self.values: dict[str, Any] = {}

    def run(self) -> None:
        """Raises UnrecognisedError naming the node that cannot be followed."""
        graph = self.model.graph
        self.values = {n: self.tensor(t) for n, t in graph.initializers.items()}
        for value in graph.inputs:
            if value.name not in self.values:
                self.values[value.name] = self._input(value)
        with np.errstate(all="ignore"):
            self._nodes(graph.nodes, self.values, {})

    def source(self, kind: str, shape: tuple[int, ...], **parts: Any) -> Source:
        """A new source of so many elements."""
        self._spend(prod(shape))
        source = Source(kind, shape, self._next, self.node, parts)
        self._next += source.size
        self.sources.append(source)
        return source

    def tensor(self, tensor: OnnxTensor) -> Any:
        """A matrix of some size stays where it is; anything else is known."""
        native = DTYPES[{v.name: k for k, v in DTYPES.items()}[tensor.dtype]].numpy
        small = len(tensor.shape) < 2 or tensor.size < _SEVERAL
        if not small or (native is None and tensor.dtype != "BFLOAT16"):
            return Weight(tensor)
        return Weight(tensor).array()

    def stop(self, why: str) -> UnrecognisedError:
        """The error that ends the trace at the present node."""
        return UnrecognisedError(f"{self.node}: {why}")

    def owner(self, base: int) -> Source:
        """The source that holds the element with this id."""
        low, high = 0, len(self.sources)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.sources[middle].base <= base else (low, middle)
        return self.sources[low]

    def _nodes(self, nodes: Iterable[Node], values: dict[str, Any], given: Mapping[str, Any]) -> None:
        for node in nodes:
            self.node = _resolved(node, given)
            try:
                made = self._node(self.node, values)
            except UnrecognisedError:
                raise
            except LoadError as e:
                raise UnrecognisedError(f"{node}: {e}") from e
            except FAULTS as e:
                raise UnrecognisedError(f"{node} cannot be followed: {str(e)[:160]}") from e
            values.update({name: value for name, value in zip(node.outputs, made, strict=False) if name})

    def _node(self, node: Node, values: dict[str, Any]) -> tuple[Any, ...]:
        function = self.model.functions.get((node.domain, node.op, node.overload))
        args = [values[name] if name else None for name in node.inputs]
        if function is not None:
            return self._call(function, node, args)
        if node.op == "If" and isinstance(args[0], np.ndarray):
            branch: Graph = node.attributes["then_branch" if args[0].item() else "else_branch"]
            return self._inner(branch, values)
        if node.domain == "" and node.op in OPERATORS and not any(isinstance(a, Form) for a in args):
            if not any(isinstance(a, Weight) for a in args):
                return self._known(node, args)
            if node.op not in WEIGHT_RULES:
                return self._known(node, [a.array() if isinstance(a, Weight) else a for a in args])
        rule = RULES.get(node.op)
        if rule is None:
            raise self.stop("this operator is not part of a decoder that the engine knows")
        made = rule(self, node, args)
        return made if isinstance(made, tuple) else (made,)

    def _known(self, node: Node, args: list[Any]) -> tuple[Any, ...]:
        if node.op in _COMPARING and self._beyond(args):
            raise self.stop("it compares positions with a number too large to follow: a sliding window, perhaps")
        made = OPERATORS[node.op](node.attributes, *args)
        made = made if isinstance(made, tuple) else (made,)
        self._spend(sum(a.size for a in made))
        return made

    def _beyond(self, args: list[Any]) -> bool:
        """Whether whole numbers, one for each token, meet one that no token of this run reaches."""
        whole = [a for a in args if a is not None and a.dtype.kind in "iu"]
        large = [a for a in whole if a.size == 1 and self.new + self.past <= abs(int(a.item())) < 1 << 40]
        return bool(large) and any(a.size > 1 and a.ndim for a in whole)

    def _inner(self, graph: Graph, values: dict[str, Any]) -> tuple[Any, ...]:
        inner = dict(values) | {n: self.tensor(t) for n, t in graph.initializers.items()}
        self._nodes(graph.nodes, inner, {})
        return tuple(inner[v.name] for v in graph.outputs)

    def _call(self, function: Function, node: Node, args: list[Any]) -> tuple[Any, ...]:
        inner = dict(zip(function.inputs, args, strict=False)) | {"": None}
        for name in function.inputs[len(args) :]:
            inner[name] = None
        self._nodes(function.nodes, inner, dict(function.defaults) | dict(node.attributes))
        return tuple(inner[name] for name in function.outputs)

    def _spend(self, elements: int) -> None:
        self._work += elements
        if self._work > MAX_WORK:
            raise self.stop("the graph is too large to be followed")

    def _input(self, value: Value) -> Any:
        """What an input holds in this run; by its name, which exporters agree on."""
        total = self.new + self.past
        name = value.name
        if name in ("input_ids", "tokens", "input"):
            return self.source("tokens", (1, self.new)).form()
        if name == "attention_mask" and value.shape is not None and len(value.shape) == 2:
            return np.ones((1, total), np.int64)
        if name == "position_ids":
            return np.arange(self.past, total)[None]
        if name == "cache_position":
            return np.arange(self.past, total)
        if name == "use_cache_branch":
            return np.ones((1,), bool)
        if name in ("num_logits_to_keep", "logits_to_keep"):
            return np.zeros((), np.int64)
        if _is_past(name) and value.shape is not None and len(value.shape) == 4:
            heads, width = (n if isinstance(n, int) else 0 for n in value.shape[1::2])
            return self.source("past", (1, heads, self.past, width or self._head_dim()), name=name).form()
        raise UnrecognisedError(f"input {name[:80]!r} of shape {value.shape} is not one that decoders have")

    def _head_dim(self) -> int:
        """Of a graph whose inputs do not state it: what an attention gives out, divided by its heads."""
        given = {node.outputs[0]: node.attributes["num_heads"] for node in self.model.graph.nodes
                 if "num_heads" in node.attributes and "Attention" in node.op}  # fmt: skip
        for node in self.model.graph.nodes:
            weight = self.values.get(node.inputs[1]) if len(node.inputs) > 1 else None
            if node.inputs and given.get(node.inputs[0]) and isinstance(weight, Weight):
                return int(node.attributes.get("K", weight.shape[0])) // int(given[node.inputs[0]])
        return 1


def is_cached(model: OnnxModel) -> bool:
    """Whether keys and values of earlier tokens are inputs of the graph."""
    return any(_is_past(v.name) for v in model.graph.inputs)


def _is_past(name: str) -> bool:
    return name.startswith("past_")


def _resolved(node: Node, given: Mapping[str, Any]) -> Node:
    """The node of a function's body with the attributes of the call that it refers to."""
    if not any(isinstance(v, Reference) for v in node.attributes.values()):
        return node
    attributes = {
        key: given[v.name] if isinstance(v, Reference) else v
        for key, v in node.attributes.items()
        if not isinstance(v, Reference) or v.name in given
    }
    return replace(node, attributes=attributes)
