"""Run a graph once at a small size, some tokens after some cached ones: known values as numbers, others symbolically.

A value that depends only on shapes, positions and masks comes out as numbers, whatever operators an exporter used for
it. A value that depends on the tokens comes out as sources and forms (`symbolic.py`), from which `decoder.py` reads the
model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.format.graph import Function, Graph, Node, OnnxModel
from ternrun.onnx.format.tensors import CODES, DTYPES, OnnxTensor
from ternrun.onnx.operators.dispatch import Scope, resolved
from ternrun.onnx.recognition.constant_ops import CONSTANT_OPS, bounded, constant_kernel
from ternrun.onnx.recognition.inputs import input_value, is_cached
from ternrun.onnx.recognition.rules import RULES, WEIGHT_RULES
from ternrun.onnx.recognition.symbolic import LinearForm
from ternrun.onnx.recognition.trace import Trace, UnrecognizedError
from ternrun.onnx.recognition.weights import Weight

_COMPARING = ("Add", "Sub", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
FAULTS = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, ArithmeticError, RecursionError)
_SMALL = 64  # a matrix of fewer elements is a constant, not a weight

Values = dict[str, Any]  # by name: numpy arrays, `Weight`s and `Form`s


class Tracer:
    """Traces `model` for `new` tokens that follow `past` cached ones."""

    def __init__(self, model: OnnxModel, new: int, past: int) -> None:
        self.model = model
        self.trace = Trace(new, past, cached=is_cached(model))

    def run(self) -> Values:
        """Every value of the graph, by name. Raises UnrecognizedError naming the node that cannot be traced."""
        graph = self.model.graph
        values: Values = {name: as_value(t) for name, t in graph.initializers.items()}
        for value in graph.inputs:
            if value.name not in values:
                values[value.name] = input_value(self.trace, value, graph, values)
        with bounded():
            self._follow(graph.nodes, values, Scope(self.model.functions, self.model.opsets, {}))
        return values

    def _follow(self, nodes: Iterable[Node], values: Values, scope: Scope) -> None:
        for node in nodes:
            self.trace.node, self.trace.opsets = resolved(node, scope), scope.opsets
            try:
                made = self._results(self.trace.node, values, scope)
            except UnrecognizedError:
                raise
            except LoadError as e:
                raise UnrecognizedError(f"{node}: {e}") from e
            except FAULTS as e:
                raise UnrecognizedError(f"{node} cannot be traced: {str(e)[:160]}") from e
            values.update({name: value for name, value in zip(node.outputs, made, strict=False) if name})

    def _results(self, node: Node, values: Values, scope: Scope) -> tuple[Any, ...]:
        function = self.model.functions.get((node.domain, node.op, node.overload))
        args = [values[name] if name else None for name in node.inputs]
        if function is not None:
            return self._called(function, node, args, scope)
        if node.op == "If" and isinstance(args[0], np.ndarray):
            branch: Graph = node.attributes["then_branch" if args[0].item() else "else_branch"]
            return self._branch(branch, values, scope)
        if node.domain == "" and node.op in CONSTANT_OPS and not any(isinstance(a, LinearForm) for a in args):
            if not any(isinstance(a, Weight) for a in args):
                return self._constant(node, args)
            if node.op not in WEIGHT_RULES:
                return self._constant(node, [a.array() if isinstance(a, Weight) else a for a in args])
        rule = RULES.get(node.op)
        if rule is None:
            raise self.trace.unsupported("this operator is not part of a decoder that the engine knows")
        made = rule(self.trace, node, args)
        return made if isinstance(made, tuple) else (made,)

    def _constant(self, node: Node, args: list[Any]) -> tuple[Any, ...]:
        if node.op in _COMPARING and self._beyond(args):
            raise self.trace.unsupported(
                "it compares positions with a number beyond the traced tokens, perhaps a sliding window"
            )
        made = constant_kernel(node, self.trace.opsets)(*args)
        results = tuple(_in_numpy(m) for m in (made if isinstance(made, tuple) else (made,)))
        self.trace.spend(sum(a.size for a in results))
        return results

    def _beyond(self, args: list[Any]) -> bool:
        """Whether integers, one for each token, are combined with a number that no token of this run reaches."""
        integers = [a for a in args if a is not None and a.dtype.kind in "iu"]
        tokens = self.trace.new + self.trace.past
        large = [a for a in integers if a.size == 1 and tokens <= abs(int(a.item())) < 1 << 40]
        return bool(large) and any(a.size > 1 and a.ndim for a in integers)

    def _branch(self, graph: Graph, values: Values, scope: Scope) -> tuple[Any, ...]:
        inner = dict(values) | {name: as_value(t) for name, t in graph.initializers.items()}
        self._follow(graph.nodes, inner, scope)
        return tuple(inner[v.name] for v in graph.outputs)

    def _called(self, function: Function, node: Node, args: list[Any], scope: Scope) -> tuple[Any, ...]:
        inner = dict(zip(function.inputs, args, strict=False)) | {"": None}
        for name in function.inputs[len(args) :]:
            inner[name] = None
        attributes = dict(function.defaults) | dict(node.attributes)
        opsets = dict(scope.opsets) | dict(function.opsets)
        self._follow(function.nodes, inner, Scope(scope.functions, opsets, attributes))
        return tuple(inner[name] for name in function.outputs)


def as_value(tensor: OnnxTensor) -> Any:
    """A large matrix as a `Weight` that stays in its file; any other tensor as an array."""
    native = DTYPES[CODES[tensor.dtype]].numpy
    small = len(tensor.shape) < 2 or tensor.size < _SMALL
    if not small or (native is None and tensor.dtype != "BFLOAT16"):
        return Weight(tensor)
    return Weight(tensor).array()


def _in_numpy(result: Any) -> np.ndarray[Any, Any]:
    """The result as an array; bfloat16, which is not one of numpy's types, becomes float32."""
    array = np.asarray(result)
    return array.astype(np.float32) if array.dtype.kind == "V" else array
