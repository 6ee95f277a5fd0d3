"""The values of a decoder's inputs in a symbolic run, by the names that exporters use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ternrun.onnx.format.graph import Graph, OnnxModel, Value
from ternrun.onnx.format.tensors import CODES, DTYPES
from ternrun.onnx.recognition.trace import Trace, UnrecognizedError
from ternrun.onnx.recognition.weights import Weight

TOKENS = ("input_ids", "tokens", "input")
# name -> its value for `past` cached tokens of `total` tokens
_CONSTANTS: dict[str, Callable[[int, int], Any]] = {
    "attention_mask": lambda past, total: np.ones((1, total), np.int64),
    "position_ids": lambda past, total: np.arange(past, total)[None],
    "cache_position": lambda past, total: np.arange(past, total),
    "use_cache_branch": lambda past, total: np.ones(1, bool),
    "num_logits_to_keep": lambda past, total: np.zeros((), np.int64),
    "logits_to_keep": lambda past, total: np.zeros((), np.int64),
}


def is_cached(model: OnnxModel) -> bool:
    """Whether keys and values of earlier tokens are inputs of the graph."""
    return any(_is_past(v.name) for v in model.graph.inputs)


def input_value(trace: Trace, value: Value, graph: Graph, values: Mapping[str, Any]) -> Any:
    """The value of an input: an array of the input's type, or a form. Raises UnrecognizedError for an unknown input."""
    name, shape = value.name, value.shape
    if name in TOKENS:
        return trace.source("tokens", (1, trace.new)).form()
    fits = name != "attention_mask" or (shape is not None and len(shape) == 2)
    if name in _CONSTANTS and fits:
        constant = _CONSTANTS[name](trace.past, trace.past + trace.new)
        return constant.astype((DTYPES[CODES[value.dtype]].numpy if value.dtype else None) or constant.dtype)
    if _is_past(name) and shape is not None and len(shape) == 4:
        heads, width = (n if isinstance(n, int) else 0 for n in shape[1::2])
        size = (1, heads, trace.past, width or _head_dim(graph, values))
        return trace.source("past", size, name=name).form()
    raise UnrecognizedError(f"input {name[:80]!r} of shape {shape} is not one that decoders have")


def _head_dim(graph: Graph, values: Mapping[str, Any]) -> int:
    """The width of a head whose inputs do not state it: the width of an attention's output divided by its heads."""
    heads = {node.outputs[0]: node.attributes["num_heads"] for node in graph.nodes
             if "num_heads" in node.attributes and "Attention" in node.op}  # fmt: skip
    for node in graph.nodes:
        weight = values.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if node.inputs and heads.get(node.inputs[0]) and isinstance(weight, Weight):
            return int(node.attributes.get("K", weight.shape[0])) // int(heads[node.inputs[0]])
    return 1


def _is_past(name: str) -> bool:
    return name.startswith("past_")
