"""The rules of the tracer: for each operator, its result for symbolic values and for weights.

Kinds of sources: tokens, embedding (weight), linear (x, weight, bias), norm (x, eps, weight), mean (x), pointwise (x,
f: a function of each element), product (a, b: gated feed-forward), scores (q, k), probabilities (x), attention (see
`attention.py`), past, present, and those of integer products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ternrun.onnx.format.graph import Node
from ternrun.onnx.recognition.attention import ATTENTION_RULES, attend
from ternrun.onnx.recognition.constant_ops import VIEWS, constant_kernel
from ternrun.onnx.recognition.pointwise import (
    GRID,
    Function,
    apply,
    erf,
    gelu,
    multiplied,
    pointwise,
    power,
    rescaled,
    single_source,
    swish,
    unary,
)
from ternrun.onnx.recognition.products import (
    dequantize,
    descaled,
    dynamic_quantize,
    gather_quantized,
    gemm,
    matmul_bits,
    matmul_integer,
    new_linear,
    quantize,
    times,
    turn,
)
from ternrun.onnx.recognition.symbolic import LinearForm, concat, where
from ternrun.onnx.recognition.trace import Trace
from ternrun.onnx.recognition.weights import Weight


def _view(trace: Trace, node: Node, args: list[Any]) -> Any:
    data, rest = args[0], args[1:]
    if isinstance(data, Weight):
        return turn(trace, node, data, rest)
    if any(isinstance(a, (LinearForm, Weight)) for a in rest):
        raise trace.unsupported("it moves elements by values that depend on the tokens")
    move = constant_kernel(node, trace.opsets)
    if node.op in ("Split", "Dropout"):
        return tuple(data.view(lambda a, i=i: move(a, *rest)[i]) for i in range(len(node.outputs)))
    return data.view(lambda a: move(a, *rest))


def _shape(_: Trace, node: Node, args: list[Any]) -> Any:
    start, end = node.attributes.get("start", 0), node.attributes.get("end", len(args[0].shape))
    return np.array(args[0].shape[slice(start, end)], np.int64)


def _cast(trace: Trace, node: Node, args: list[Any]) -> Any:
    if isinstance(args[0], LinearForm) and node.op == "Cast" and node.attributes.get("to") not in (1, 10, 11, 16):
        inner = single_source(trace, args[0], "tokens")
        if inner is None:
            raise trace.unsupported("it converts values that depend on the tokens to integers")
    return args[0]


def _concat(trace: Trace, node: Node, args: list[Any]) -> LinearForm:
    if any(isinstance(a, Weight) for a in args):
        raise trace.unsupported("it joins weights")
    return concat(args, node.attributes["axis"])


def _where(trace: Trace, _: Node, args: list[Any]) -> Any:
    if isinstance(args[0], LinearForm):
        raise trace.unsupported("its condition depends on the tokens")
    return where(*args)


def _is_nan(_: Trace, __: Node, args: list[Any]) -> Any:
    return np.broadcast_to(np.False_, args[0].shape)  # a guard of softmax against rows that are fully masked


def _add(trace: Trace, node: Node, args: list[Any]) -> Any:
    a, b = args
    if node.op == "Sub":
        b = b.times(-1) if isinstance(b, LinearForm) else -b
    if not isinstance(a, LinearForm):
        a, b = b, a
    linear = single_source(trace, a, "linear")
    if isinstance(b, np.ndarray) and linear is not None and linear[0].parts["bias"] is None and node.op == "Add":
        source, scale = linear
        if scale == 1 and b.size == source.shape[-1] and b.shape[-1] == b.size:
            return new_linear(trace, source.parts["x"], source.parts["weight"], a.shape, b.reshape(-1))
    return a.plus(b)


def _mul(trace: Trace, node: Node, args: list[Any]) -> Any:
    a, b = args
    if isinstance(a, Weight) or isinstance(b, Weight):
        raise trace.unsupported("it multiplies by a weight that is a matrix")
    if isinstance(a, LinearForm) and isinstance(b, LinearForm):
        return _product(trace, a, b)
    form, known = (a, b) if isinstance(a, LinearForm) else (b, a)
    for kind, part in (("norm", "weight"), ("linear", "factor")):
        found = single_source(trace, form, kind)
        if found is not None and found[1] == 1 and known.size > 1 and found[0].parts.get(part) is None:
            source = found[0]
            if form.shape == source.shape and known.size == known.shape[-1] == source.shape[-1]:
                parts = source.parts | {part: known.reshape(-1).astype(np.float32)}
                return trace.source(kind, source.shape, **parts).form()
    return form.times(known)


def _product(trace: Trace, a: LinearForm, b: LinearForm) -> LinearForm:
    """The product of two forms: a norm, an activation, or a gated value."""
    for x, r in ((a, b), (b, a)):
        found = single_source(trace, r, "pointwise")
        mean = found and single_source(trace, found[0].parts["x"], "mean")
        if found and mean and mean[0].parts["x"].same(x):
            inner, outer = mean[1], found[1]
            return _normed(trace, x, rescaled(found[0].parts["f"], outer, inner))
    for left, right in ((a, b), (b, a)):
        scaled = single_source(trace, left, "integer product")
        if scaled:
            return descaled(trace, scaled, right)
    (xa, fa), (xb, fb) = pointwise(trace, a), pointwise(trace, b)
    if xa.same(xb):
        return trace.source("pointwise", a.shape, x=xa, f=multiplied(fa, fb)).form()
    for x, y, f, other in ((xa, xb, fa, fb), (xb, xa, fb, fa)):
        slope = y.ratio(x)  # 0.5 x times f(x)
        if slope is not None:
            return trace.source("pointwise", a.shape, x=x, f=multiplied(f, rescaled(other, 1.0, slope))).form()
    return trace.source("product", a.shape, a=a, b=b).form()


def _normed(trace: Trace, x: LinearForm, f: Function) -> LinearForm:
    """x * f(mean of x squared), where f must be 1 / sqrt(mean + eps)."""
    at = np.array([0.0, 0.5, 1.0, 4.0, 100.0])
    eps = f(at) ** -2.0 - at
    if not (np.isfinite(eps).all() and 0 <= eps[0] < 1 and np.allclose(eps, eps[0], rtol=1e-4, atol=1e-9)):
        raise trace.unsupported("it resembles an RMSNorm, but is not one")
    return trace.source("norm", x.shape, x=x, eps=float(eps[0]), weight=None).form()


def _div(trace: Trace, node: Node, args: list[Any]) -> Any:
    a, b = args
    if isinstance(b, np.ndarray):
        return a.times(1 / b.astype(np.float64))
    inverse = apply(trace, b, lambda t: 1 / t)
    return _mul(trace, node, [a, inverse])


def _mean(trace: Trace, node: Node, args: list[Any]) -> LinearForm:
    x = args[0]
    axes = node.attributes.get("axes") if len(args) < 2 or args[1] is None else args[1].tolist()
    found = single_source(trace, x, "pointwise")
    square = found and found[1] == 1 and np.allclose(found[0].parts["f"](GRID), GRID**2)
    if not square or axes not in ([-1], [len(x.shape) - 1]) or not node.attributes.get("keepdims", 1):
        raise trace.unsupported("it is a mean of other values than the squares of a row")
    assert found
    return trace.source("mean", (*x.shape[:-1], 1), x=found[0].parts["x"]).form()


def _norm(trace: Trace, node: Node, args: list[Any]) -> Any:
    """RMSNormalization, SimplifiedLayerNormalization, and the form that first adds the residual."""
    skip = node.op == "SkipSimplifiedLayerNormalization"
    x = args[0].plus(args[1]) if skip else args[0]
    if skip and len(args) > 3 and args[3] is not None:
        x = x.plus(args[3])
    weight = args[2] if skip else args[1]
    if not skip and node.attributes.get("axis", -1) not in (-1, len(x.shape) - 1):
        raise trace.unsupported("it does not norm the last axis")
    if not isinstance(weight, np.ndarray) or weight.shape != x.shape[-1:]:
        raise trace.unsupported("its weight is not a vector")
    eps = float(node.attributes.get("epsilon", 1e-5))
    normed = trace.source("norm", x.shape, x=x, eps=eps, weight=weight.astype(np.float32)).form()
    return (normed, None, None, x) if skip else normed


def _matmul(trace: Trace, node: Node, args: list[Any]) -> LinearForm:
    a, b = args
    if isinstance(a, LinearForm) and isinstance(b, Weight):
        return times(trace, a, b.transposed())
    if isinstance(a, LinearForm) and isinstance(b, LinearForm):
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        if single_source(trace, a, "probabilities") is not None:
            return attend(trace, a, b)
        return trace.source("scores", shape, q=a, k=b.view(lambda x: np.swapaxes(x, -1, -2))).form()
    raise trace.unsupported("it is neither a product with a weight nor part of an attention")


def _softmax(trace: Trace, node: Node, args: list[Any]) -> LinearForm:
    x = args[0]
    if node.attributes.get("axis", -1) not in (-1, len(x.shape) - 1):
        raise trace.unsupported("it is not over the last axis")
    return trace.source("probabilities", x.shape, x=x).form()


def _sum(trace: Trace, node: Node, args: list[Any]) -> Any:
    total = args[0]
    for other in args[1:]:
        total = _add(trace, replace(node, op="Add"), [total, other])
    return total


Rule = Callable[[Trace, Node, list[Any]], Any]


RULES: dict[str, Rule] = ATTENTION_RULES | dict.fromkeys(VIEWS, _view) | {
    "Add": _add, "Sub": _add, "Sum": _sum, "Mul": _mul, "Div": _div, "Pow": power, "Cast": _cast, "CastLike": _cast,
    "Concat": _concat, "Where": _where, "IsNaN": _is_nan, "Shape": _shape, "MatMul": _matmul, "Gemm": gemm,
    "Neg": lambda t, n, a: a[0].times(-1), "Softmax": _softmax, "ReduceMean": _mean,
    "Sqrt": unary(np.sqrt), "Reciprocal": unary(lambda t: 1 / np.asarray(t, np.float64)), "Tanh": unary(np.tanh),
    "Sigmoid": unary(lambda t: 1 / (1 + np.exp(-t))), "Relu": unary(lambda t: np.maximum(t, 0)), "Erf": erf,
    "Gelu": gelu, "FastGelu": gelu, "Swish": swish, "QuickGelu": swish, "RMSNormalization": _norm,
    "SimplifiedLayerNormalization": _norm, "SkipSimplifiedLayerNormalization": _norm, "MatMulNBits": matmul_bits,
    "GatherBlockQuantized": gather_quantized, "DequantizeLinear": dequantize, "QuantizeLinear": quantize,
    "DynamicQuantizeLinear": dynamic_quantize, "MatMulInteger": matmul_integer,
}  # fmt: skip


WEIGHT_RULES = ("Identity", "Transpose", "Reshape", "Gather", "Cast", "DequantizeLinear")  # return a Weight
