"""Rules for products with weights: dense, in blocks of few bits, or quantized with scales."""

from __future__ import annotations

from typing import Any

import numpy as np

from ternrun.onnx.format.graph import Node
from ternrun.onnx.recognition.constant_ops import constant_kernel
from ternrun.onnx.recognition.pointwise import single_source
from ternrun.onnx.recognition.symbolic import LinearForm, Source
from ternrun.onnx.recognition.trace import Trace
from ternrun.onnx.recognition.weights import Weight, dequantized, packed


def turn(trace: Trace, node: Node, weight: Weight, rest: list[Any]) -> Any:
    """A weight after an operator that transposes, reshapes or looks it up."""
    match node.op:
        case "Identity":
            return weight
        case "Transpose" if node.attributes.get("perm", [1, 0]) == [1, 0]:
            return weight.transposed()
        case "Reshape":
            return weight.reshaped(tuple(int(n) for n in rest[0]))
        case "Gather" if node.attributes.get("axis", 0) == 0:
            return embedding(trace, weight, rest[0])
    raise trace.unsupported("a weight is rearranged in an unsupported way")


def embedding(trace: Trace, weight: Weight, indices: Any) -> Any:
    """Rows of a weight looked up by the tokens, or rows of a table at known positions."""
    if isinstance(indices, np.ndarray):
        rows = weight.array()
        trace.tables = max(trace.tables, len(rows))
        return constant_kernel(Node("Gather", (), ()), trace.opsets)(rows, indices)
    if single_source(trace, indices, "tokens") is None:
        raise trace.unsupported("a weight is indexed by another value than the tokens in order")
    return trace.source("embedding", (*indices.shape, weight.shape[1]), weight=weight).form()


def new_linear(trace: Trace, x: LinearForm, weight: Weight, shape: tuple[int, ...], bias: Any = None) -> LinearForm:
    """x W^T + bias, as a source."""
    return trace.source("linear", shape, x=x, weight=weight, bias=bias).form()


def times(trace: Trace, x: LinearForm, weight: Weight, bias: Any = None) -> LinearForm:
    """x W^T + bias, for a weight (outputs, inputs)."""
    if len(weight.shape) != 2 or weight.shape[1] != x.shape[-1]:
        raise trace.unsupported(f"{x.shape[-1]} numbers meet a weight of shape {list(weight.shape)}")
    return new_linear(trace, x, weight, (*x.shape[:-1], weight.shape[0]), bias)


def gemm(trace: Trace, node: Node, args: list[Any]) -> LinearForm:
    """Gemm of a row and a weight."""
    a, b = args[:2]
    bias = args[2] if len(args) > 2 else None
    get = node.attributes.get
    if not isinstance(a, LinearForm) or not isinstance(b, Weight) or get("transA", 0) or get("alpha", 1.0) != 1.0:
        raise trace.unsupported("it is not the product of a row with a weight")
    weight = b if get("transB", 0) else b.transposed()
    if bias is not None and (get("beta", 1.0) != 1.0 or not isinstance(bias, np.ndarray) or bias.ndim != 1):
        raise trace.unsupported("its bias is not a vector")
    return times(trace, a, weight, bias)


def matmul_bits(trace: Trace, node: Node, args: list[Any]) -> LinearForm:
    """MatMulNBits: a weight in blocks of 2, 4 or 8 bits."""
    x, b, scale, zero, groups, bias = [*args, *[None] * 6][:6]
    if not isinstance(b, Weight) or groups is not None:
        raise trace.unsupported("its weight is not a tensor of the file, or is reordered by g_idx")
    get = node.attributes
    shape = (get["N"], get["K"])
    scale, zero = (a.array() if isinstance(a, Weight) else a for a in (scale, zero))
    weight = packed(b.tensor, shape, get.get("bits", 4), get["block_size"], scale, zero)
    return times(trace, x, weight, bias)


def gather_quantized(trace: Trace, node: Node, args: list[Any]) -> Any:
    """GatherBlockQuantized: an embedding in blocks."""
    data, indices, scale, zero = [*args, None][:4]
    get = node.attributes.get
    if not isinstance(data, Weight) or get("gather_axis", 0) != 0 or get("quantize_axis", 1) not in (1, -1):
        raise trace.unsupported("it does not look up rows of blocks")
    scale, zero = (a.array() if isinstance(a, Weight) else a for a in (scale, zero))
    block, bits = get("block_size", 128), get("bits", 4)
    if data.tensor.dtype == "UINT8":
        cols = data.shape[1] * 8 // bits
        weight = packed(data.tensor, (data.shape[0], cols), bits, block, scale, zero)
    else:
        weight = dequantized(data, scale, zero, 1, block)
    return embedding(trace, weight, indices)


def dequantize(trace: Trace, node: Node, args: list[Any]) -> Any:
    """DequantizeLinear of a weight, or of a row that `quantize` returned."""
    if isinstance(args[0], LinearForm):
        return args[0]  # `quantize` returns its input unchanged
    weight, scale, zero = [*args, None][:3]
    scale = scale.array() if isinstance(scale, Weight) else scale
    if not isinstance(weight, Weight):
        return constant_kernel(node, trace.opsets)(weight, scale, zero)
    if isinstance(zero, Weight):
        zero = zero.tensor.integers()
    return dequantized(weight, scale, zero, node.attributes.get("axis", 1), node.attributes.get("block_size", 0))


def quantize(trace: Trace, node: Node, args: list[Any]) -> Any:
    """QuantizeLinear of a row: the row itself, with a note."""
    trace.notes.append("activations are not rounded where the graph rounds them")
    return args[0]


def dynamic_quantize(trace: Trace, _: Node, args: list[Any]) -> tuple[LinearForm, LinearForm, LinearForm]:
    """DynamicQuantizeLinear: the row in 8 bits, its scale and its zero point."""
    x = args[0]
    kinds = (("rounded", x.shape), ("row scale", ()), ("row zero", ()))
    made = [trace.source(kind, shape, x=x).form() for kind, shape in kinds]
    return made[0], made[1], made[2]


def matmul_integer(trace: Trace, _: Node, args: list[Any]) -> LinearForm:
    """MatMulInteger of a rounded row: a product that is multiplied by its scales later."""
    x, weight, _x_zero, zero = [*args, None, None][:4]
    rounded = single_source(trace, x, "rounded")
    if rounded is None or not isinstance(weight, Weight):
        raise trace.unsupported("it does not multiply a rounded row by a weight")
    shape = (*x.shape[:-1], weight.shape[1])
    return trace.source("integer product", shape, x=rounded[0].parts["x"], weight=weight, zero=zero).form()


def descaled(trace: Trace, product: tuple[Source, float], other: LinearForm) -> LinearForm:
    """A linear from an integer product times the row's scale and the weight's."""
    source, scale = product
    row = trace.owner(int(other.terms[0].ids.flat[0])) if len(other.terms) == 1 and other.terms[0].ids.size else None
    if row is None or row.kind != "row scale" or not row.parts["x"].same(source.parts["x"]):
        raise trace.unsupported("an integer product is multiplied by other values than its scales")
    trace.notes.append("activations are rounded to 8 bits in the engine's own way, or not at all")
    weight: Weight = source.parts["weight"]
    factor = np.asarray(other.terms[0].coef * scale, np.float32).reshape(-1)
    zero = source.parts["zero"]
    factor = factor[:1] if (factor == factor[0]).all() else factor
    quantized = dequantized(weight, factor, zero, 1, 0)
    return times(trace, source.parts["x"], quantized.transposed())
