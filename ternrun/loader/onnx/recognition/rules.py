"""What each operator makes of values that depend on the tokens, and of weights: a table, one line an operator.

Kinds of sources: tokens, embedding (weight), linear (x, weight, bias), norm (x, eps, weight), mean (x), pointwise
(x, f: a function of each element), product (a, b: gated feed-forward), scores (q, k), probabilities (x), attention (see
`attention.py`), past, present, and those of integer products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.loader.onnx.recognition.forms import Form, Source, concat, where
from ternrun.loader.onnx.recognition.known import VIEWS
from ternrun.loader.onnx.recognition.weights import FLOATS, Weight, dequantized, packed

if TYPE_CHECKING:
    from ternrun.loader.onnx.graph import Node
    from ternrun.loader.onnx.recognition.trace import Trace

Function = Callable[[Any], Any]
_GRID = np.linspace(-6, 6, 49)


class UnrecognisedError(LoadError):
    """The graph is not a decoder that the engine can run; the message names the node at which that shows."""


def whole(trace: Trace, form: Any, *kinds: str) -> tuple[Source, float] | None:
    """The source all of whose elements, in their order, make up the form, and the number that multiplies them."""
    if not isinstance(form, Form) or len(form.terms) != 1 or (form.const is not None and form.const.any()):
        return None
    term = form.terms[0]
    if not term.ids.size:
        return None
    source = trace.owner(int(term.ids.flat[0]))
    order = np.arange(source.base, source.base + source.size)
    scale = float(term.coef.flat[0])
    if (kinds and source.kind not in kinds) or term.ids.size != source.size or (term.coef != scale).any():
        return None
    return (source, scale) if np.array_equal(term.ids.ravel(), order) else None


def _pointwise(trace: Trace, form: Form) -> tuple[Form, Function]:
    """The form as a function of each element of another form (its own, if nothing else)."""
    for i, term in enumerate(form.terms):
        found = whole(trace, Form((term,), None, form.shape), "pointwise")
        if found is None:
            continue
        (source, scale), rest = found, (*form.terms[:i], *form.terms[i + 1 :])
        x, f = source.parts["x"], source.parts["f"]
        const = 0.0 if form.const is None else form.const.flat[0]
        if form.const is not None and (form.const != const).any():
            continue
        slope = Form(rest, None, form.shape).ratio(x) if rest else 0.0
        if slope is not None and x.shape == form.shape:
            return x, _affine(f, scale, slope, const)
    if form.const is not None and form.terms and (form.const == (shift := form.const.flat[0])).all():
        return Form(form.terms, None, form.shape), lambda t: t + shift
    return form, lambda t: t


def _affine(f: Function, scale: float, slope: float, const: float) -> Function:
    return lambda t: scale * f(t) + slope * t + const


def unary(function: Function) -> Callable[[Trace, Node, list[Any]], Any]:
    """An operator on each element of a form."""

    def rule(trace: Trace, _: Node, args: list[Any]) -> Form:
        return _apply(trace, args[0], function)

    return rule


def _apply(trace: Trace, form: Form, function: Function) -> Form:
    x, f = _pointwise(trace, form)
    return trace.source("pointwise", form.shape, x=x, f=lambda t: function(f(t))).form()


def _view(trace: Trace, node: Node, args: list[Any]) -> Any:
    data, rest = args[0], args[1:]
    if isinstance(data, Weight):
        return _turn(trace, node, data, rest)
    if any(isinstance(a, (Form, Weight)) for a in rest):
        raise trace.stop("it moves elements by numbers that depend on the tokens")
    run = VIEWS[node.op]
    if node.op != "Split":
        return data.view(lambda a: run(node.attributes, a, *rest))
    count = len(node.outputs)
    attributes = {"num_outputs": count} | dict(node.attributes)
    return tuple(data.view(lambda a, i=i: run(attributes, a, *rest)[i]) for i in range(count))


def _turn(trace: Trace, node: Node, weight: Weight, rest: list[Any]) -> Any:
    """A weight seen from another side."""
    match node.op:
        case "Identity":
            return weight
        case "Transpose" if node.attributes.get("perm", [1, 0]) == [1, 0]:
            return weight.turned()
        case "Reshape":
            return weight.reshaped(tuple(int(n) for n in rest[0]))
        case "Gather" if node.attributes.get("axis", 0) == 0:
            return _embedding(trace, weight, rest[0])
    raise trace.stop("a weight is moved about in a way that is not followed")


def _embedding(trace: Trace, weight: Weight, indices: Any) -> Any:
    if isinstance(indices, np.ndarray):
        rows = weight.array()
        trace.tables = max(trace.tables, len(rows))
        return VIEWS["Gather"]({}, rows, indices)
    if whole(trace, indices, "tokens") is None:
        raise trace.stop("a weight is looked up by something else than the tokens in their order")
    return trace.source("embedding", (*indices.shape, weight.shape[1]), weight=weight).form()


def _shape(_: Trace, node: Node, args: list[Any]) -> Any:
    start, end = node.attributes.get("start", 0), node.attributes.get("end", len(args[0].shape))
    return np.array(args[0].shape[slice(start, end)], np.int64)


def _cast(trace: Trace, node: Node, args: list[Any]) -> Any:
    if isinstance(args[0], Form) and node.op == "Cast" and node.attributes.get("to") not in (1, 10, 11, 16):
        inner = whole(trace, args[0], "tokens")
        if inner is None:
            raise trace.stop("it turns numbers that depend on the tokens into integers")
    return args[0]


def _concat(trace: Trace, node: Node, args: list[Any]) -> Form:
    if any(isinstance(a, Weight) for a in args):
        raise trace.stop("it joins weights")
    return concat(args, node.attributes["axis"])


def _where(trace: Trace, _: Node, args: list[Any]) -> Any:
    if isinstance(args[0], Form):
        raise trace.stop("it chooses by something that depends on the tokens")
    return where(*args)


def _is_nan(_: Trace, __: Node, args: list[Any]) -> Any:
    return np.broadcast_to(np.False_, args[0].shape)  # what guards a softmax whose whole row is masked


def _add(trace: Trace, node: Node, args: list[Any]) -> Any:
    a, b = args
    if node.op == "Sub":
        b = b.times(-1) if isinstance(b, Form) else -b
    if not isinstance(a, Form):
        a, b = b, a
    linear = whole(trace, a, "linear")
    if isinstance(b, np.ndarray) and linear is not None and linear[0].parts["bias"] is None and node.op == "Add":
        source, scale = linear
        if scale == 1 and b.size == source.shape[-1] and b.shape[-1] == b.size:
            return _linear(trace, source.parts["x"], source.parts["weight"], a.shape, b.reshape(-1))
    return a.plus(b)


def _linear(trace: Trace, x: Form, weight: Weight, shape: tuple[int, ...], bias: Any = None) -> Form:
    return trace.source("linear", shape, x=x, weight=weight, bias=bias).form()


def _mul(trace: Trace, node: Node, args: list[Any]) -> Any:
    a, b = args
    if isinstance(a, Weight) or isinstance(b, Weight):
        raise trace.stop("it multiplies by a weight that is a matrix")
    if isinstance(a, Form) and isinstance(b, Form):
        return _product(trace, a, b)
    form, known = (a, b) if isinstance(a, Form) else (b, a)
    for kind, part in (("norm", "weight"), ("linear", "factor")):
        found = whole(trace, form, kind)
        if found is not None and found[1] == 1 and known.size > 1 and found[0].parts.get(part) is None:
            source = found[0]
            if form.shape == source.shape and known.size == known.shape[-1] == source.shape[-1]:
                parts = source.parts | {part: known.reshape(-1).astype(np.float32)}
                return trace.source(kind, source.shape, **parts).form()
    return form.times(known)


def _product(trace: Trace, a: Form, b: Form) -> Form:
    """Of two forms: a norm, an activation, or what a gate lets through."""
    for x, r in ((a, b), (b, a)):
        found = whole(trace, r, "pointwise")
        mean = found and whole(trace, found[0].parts["x"], "mean")
        if found and mean and mean[0].parts["x"].same(x):
            inner, outer = mean[1], found[1]
            return _normed(trace, x, _scaled(found[0].parts["f"], outer, inner))
    for left, right in ((a, b), (b, a)):
        scaled = whole(trace, left, "integer product")
        if scaled:
            return _descaled(trace, scaled, right)
    (xa, fa), (xb, fb) = _pointwise(trace, a), _pointwise(trace, b)
    if xa.same(xb):
        return trace.source("pointwise", a.shape, x=xa, f=_times_function(fa, fb)).form()
    for x, y, f, other in ((xa, xb, fa, fb), (xb, xa, fb, fa)):
        slope = y.ratio(x)  # 0.5 x times f(x)
        if slope is not None:
            return trace.source("pointwise", a.shape, x=x, f=_times_function(f, _scaled(other, 1.0, slope))).form()
    return trace.source("product", a.shape, a=a, b=b).form()


def _scaled(f: Function, outer: float, inner: float) -> Function:
    return lambda t: outer * f(inner * t)


def _times_function(f: Function, g: Function) -> Function:
    return lambda t: f(t) * g(t)


def _normed(trace: Trace, x: Form, f: Function) -> Form:
    """x times f(mean of x squared): f must be 1 / sqrt(mean + eps)."""
    at = np.array([0.0, 0.5, 1.0, 4.0, 100.0])
    eps = f(at) ** -2.0 - at
    if not (np.isfinite(eps).all() and 0 <= eps[0] < 1 and np.allclose(eps, eps[0], rtol=1e-4, atol=1e-9)):
        raise trace.stop("it looks like an RMSNorm and is none")
    return trace.source("norm", x.shape, x=x, eps=float(eps[0]), weight=None).form()


def _div(trace: Trace, node: Node, args: list[Any]) -> Any:
    a, b = args
    if isinstance(b, np.ndarray):
        return a.times(1 / b.astype(np.float64))
    inverse = _apply(trace, b, lambda t: 1 / t)
    return _mul(trace, node, [a, inverse])


def _pow(trace: Trace, _: Node, args: list[Any]) -> Form:
    if not isinstance(args[1], np.ndarray) or args[1].size != 1:
        raise trace.stop("the power is not one number")
    power = float(args[1].item())
    return _apply(trace, args[0], lambda t: np.asarray(t, np.float64) ** power)


def _mean(trace: Trace, node: Node, args: list[Any]) -> Form:
    x = args[0]
    axes = node.attributes.get("axes") if len(args) < 2 or args[1] is None else args[1].tolist()
    found = whole(trace, x, "pointwise")
    square = found and found[1] == 1 and np.allclose(found[0].parts["f"](_GRID), _GRID**2)
    if not square or axes not in ([-1], [len(x.shape) - 1]) or not node.attributes.get("keepdims", 1):
        raise trace.stop("it is a mean of something else than the squares of a row")
    assert found
    return trace.source("mean", (*x.shape[:-1], 1), x=found[0].parts["x"]).form()


def _norm(trace: Trace, node: Node, args: list[Any]) -> Any:
    """RMSNormalization, SimplifiedLayerNormalization, and its form that adds the residual first."""
    skip = node.op == "SkipSimplifiedLayerNormalization"
    x = args[0].plus(args[1]) if skip else args[0]
    if skip and len(args) > 3 and args[3] is not None:
        x = x.plus(args[3])
    weight = args[2] if skip else args[1]
    if not skip and node.attributes.get("axis", -1) not in (-1, len(x.shape) - 1):
        raise trace.stop("it does not norm the last axis")
    if not isinstance(weight, np.ndarray) or weight.shape != x.shape[-1:]:
        raise trace.stop("its weight is not a vector")
    eps = float(node.attributes.get("epsilon", 1e-5))
    normed = trace.source("norm", x.shape, x=x, eps=eps, weight=weight.astype(np.float32)).form()
    return (normed, None, None, x) if skip else normed


def _matmul(trace: Trace, node: Node, args: list[Any]) -> Form:
    from ternrun.loader.onnx.recognition.attention import attend  # which reads sources made here

    a, b = args
    if isinstance(a, Form) and isinstance(b, Weight):
        return _times(trace, a, b.turned())
    if isinstance(a, Form) and isinstance(b, Form):
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        if whole(trace, a, "probabilities") is not None:
            return attend(trace, a, b)
        return trace.source("scores", shape, q=a, k=b.view(lambda x: np.swapaxes(x, -1, -2))).form()
    raise trace.stop("it multiplies neither by a weight nor two parts of an attention")


def _times(trace: Trace, x: Form, weight: Weight, bias: Any = None) -> Form:
    """x W^T + bias, for a weight (outputs, inputs)."""
    if len(weight.shape) != 2 or weight.shape[1] != x.shape[-1]:
        raise trace.stop(f"{x.shape[-1]} numbers meet a weight of shape {list(weight.shape)}")
    return _linear(trace, x, weight, (*x.shape[:-1], weight.shape[0]), bias)


def _gemm(trace: Trace, node: Node, args: list[Any]) -> Form:
    a, b = args[:2]
    bias = args[2] if len(args) > 2 else None
    get = node.attributes.get
    if not isinstance(a, Form) or not isinstance(b, Weight) or get("transA", 0) or get("alpha", 1.0) != 1.0:
        raise trace.stop("it is not the product of a row with a weight")
    weight = b if get("transB", 0) else b.turned()
    if bias is not None and (get("beta", 1.0) != 1.0 or not isinstance(bias, np.ndarray) or bias.ndim != 1):
        raise trace.stop("its bias is not a vector")
    return _times(trace, a, weight, bias)


def _bits(trace: Trace, node: Node, args: list[Any]) -> Form:
    x, b, scale, zero, groups, bias = [*args, *[None] * 6][:6]
    if not isinstance(b, Weight) or groups is not None:
        raise trace.stop("its weight is not a tensor of the file, or reordered by g_idx")
    get = node.attributes
    shape = (get["N"], get["K"])
    scale, zero = (a.array() if isinstance(a, Weight) else a for a in (scale, zero))
    weight = packed(b.tensor, shape, get.get("bits", 4), get["block_size"], scale, zero)
    return _times(trace, x, weight, bias)


def _gather_quantized(trace: Trace, node: Node, args: list[Any]) -> Any:
    data, indices, scale, zero = [*args, None][:4]
    get = node.attributes.get
    if not isinstance(data, Weight) or get("gather_axis", 0) != 0 or get("quantize_axis", 1) not in (1, -1):
        raise trace.stop("it does not look up rows of blocks")
    scale, zero = (a.array() if isinstance(a, Weight) else a for a in (scale, zero))
    block, bits = get("block_size", 128), get("bits", 4)
    if data.tensor.dtype == "UINT8":
        cols = data.shape[1] * 8 // bits
        weight = packed(data.tensor, (data.shape[0], cols), bits, block, scale, zero)
    else:
        weight = dequantized(data, scale, zero, 1, block)
    return _embedding(trace, weight, indices)


def _dequantize(trace: Trace, node: Node, args: list[Any]) -> Any:
    if isinstance(args[0], Form):
        return args[0]  # of what QuantizeLinear left as it was
    weight, scale, zero = [*args, None][:3]
    if not isinstance(weight, Weight):
        return ((weight.astype(np.float32)) - (0 if zero is None else zero.astype(np.float32))) * scale
    scale = scale.array() if isinstance(scale, Weight) else scale
    if isinstance(zero, Weight):
        zero = zero.tensor.integers()
    return dequantized(weight, scale, zero, node.attributes.get("axis", 1), node.attributes.get("block_size", 0))


def _quantize(trace: Trace, node: Node, args: list[Any]) -> Any:
    trace.notes.append("activations are not rounded where the graph rounds them")
    return args[0]


def _dynamic(trace: Trace, _: Node, args: list[Any]) -> tuple[Form, Form, Form]:
    """DynamicQuantizeLinear: the row in 8 bits, its scale, its zero point."""
    x = args[0]
    kinds = (("rounded", x.shape), ("row scale", ()), ("row zero", ()))
    made = [trace.source(kind, shape, x=x).form() for kind, shape in kinds]
    return made[0], made[1], made[2]


def _integer(trace: Trace, _: Node, args: list[Any]) -> Form:
    x, weight, _x_zero, zero = [*args, None, None][:4]
    rounded = whole(trace, x, "rounded")
    if rounded is None or not isinstance(weight, Weight):
        raise trace.stop("it does not multiply a rounded row by a weight")
    shape = (*x.shape[:-1], weight.shape[1])
    return trace.source("integer product", shape, x=rounded[0].parts["x"], weight=weight, zero=zero).form()


def _descaled(trace: Trace, product: tuple[Source, float], other: Form) -> Form:
    """An integer product times the row's scale and the weight's: a linear."""
    source, scale = product
    row = trace.owner(int(other.terms[0].ids.flat[0])) if len(other.terms) == 1 and other.terms[0].ids.size else None
    if row is None or row.kind != "row scale" or not row.parts["x"].same(source.parts["x"]):
        raise trace.stop("an integer product is multiplied by something else than its scales")
    trace.notes.append("activations are rounded to 8 bits in the engine's own way, or not at all")
    weight: Weight = source.parts["weight"]
    factor = np.asarray(other.terms[0].coef * scale, np.float32).reshape(-1)
    zero = source.parts["zero"]
    factor = factor[:1] if (factor == factor[0]).all() else factor
    quantized = dequantized(weight, factor, zero, 1, 0)
    return _times(trace, source.parts["x"], quantized.turned())


def _softmax(trace: Trace, node: Node, args: list[Any]) -> Form:
    x = args[0]
    if node.attributes.get("axis", -1) not in (-1, len(x.shape) - 1):
        raise trace.stop("it is not over the last axis")
    return trace.source("probabilities", x.shape, x=x).form()


def _gelu(trace: Trace, node: Node, args: list[Any]) -> Form:
    if node.attributes.get("approximate", "none") != "tanh" and node.op == "Gelu":
        raise trace.stop("the engine has the GELU of tanh, not that of erf")
    return _apply(trace, args[0], ACTIVATIONS["gelu"])


def _swish(trace: Trace, node: Node, args: list[Any]) -> Form:
    alpha = float(node.attributes.get("alpha", 1.0))
    return _apply(trace, args[0], lambda t: t / (1 + np.exp(-alpha * t)))


def _sum(trace: Trace, node: Node, args: list[Any]) -> Any:
    total = args[0]
    for other in args[1:]:
        total = _add(trace, replace(node, op="Add"), [total, other])
    return total


def rotate(x: Form, cos: Any, sin: Any, *, interleaved: bool) -> Form:
    """x (..., D) rotated by angles whose cos and sin are (..., d/2), d <= D; the rest of D is left as it is."""
    half = cos.shape[-1]
    if interleaved:
        a, b = x.view(lambda v: v[..., 0 : 2 * half : 2]), x.view(lambda v: v[..., 1 : 2 * half : 2])
    else:
        a, b = x.view(lambda v: v[..., :half]), x.view(lambda v: v[..., half : 2 * half])
    left, right = a.times(cos).plus(b.times(-sin)), a.times(sin).plus(b.times(cos))
    if interleaved:
        pairs = [p.view(lambda v: v[..., None]) for p in (left, right)]
        rotated = concat(pairs, -1).view(lambda v: v.reshape(*v.shape[:-2], 2 * half))
    else:
        rotated = concat([left, right], -1)
    return concat([rotated, x.view(lambda v: v[..., 2 * half :])], -1)


ACTIVATIONS: dict[str, Function] = {
    "silu": lambda t: t / (1 + np.exp(-t)),
    "gelu": lambda t: 0.5 * t * (1 + np.tanh(np.sqrt(2 / np.pi) * (t + 0.044715 * t**3))),
    "relu2": lambda t: np.maximum(t, 0) ** 2,
}


def activation_of(trace: Trace, form: Form) -> tuple[str, Form] | None:
    """The engine's activation that the form applies, and to what; None if it applies none of them."""
    x, f = _pointwise(trace, form)
    for name, function in ACTIVATIONS.items():
        if np.allclose(f(_GRID), function(_GRID), rtol=2e-3, atol=2e-4):
            return name, x
    return None


def _erf(trace: Trace, _: Node, __: list[Any]) -> Form:
    raise trace.stop("the engine has the GELU of tanh, not that of erf")


Rule = Callable[["Trace", "Node", list[Any]], Any]
RULES: dict[str, Rule] = dict.fromkeys(VIEWS, _view) | {
    "Add": _add, "Sub": _add, "Sum": _sum, "Mul": _mul, "Div": _div, "Pow": _pow, "Cast": _cast, "CastLike": _cast,
    "Concat": _concat, "Where": _where, "IsNaN": _is_nan, "Shape": _shape, "MatMul": _matmul, "Gemm": _gemm,
    "Neg": lambda t, n, a: a[0].times(-1), "Softmax": _softmax, "ReduceMean": _mean,
    "Sqrt": unary(np.sqrt), "Reciprocal": unary(lambda t: 1 / np.asarray(t, np.float64)), "Tanh": unary(np.tanh),
    "Sigmoid": unary(lambda t: 1 / (1 + np.exp(-t))), "Relu": unary(lambda t: np.maximum(t, 0)), "Erf": _erf,
    "Gelu": _gelu, "FastGelu": _gelu, "Swish": _swish, "QuickGelu": _swish, "RMSNormalization": _norm,
    "SimplifiedLayerNormalization": _norm, "SkipSimplifiedLayerNormalization": _norm, "MatMulNBits": _bits,
    "GatherBlockQuantized": _gather_quantized, "DequantizeLinear": _dequantize, "QuantizeLinear": _quantize,
    "DynamicQuantizeLinear": _dynamic, "MatMulInteger": _integer,
}  # fmt: skip
WEIGHT_RULES = ("Identity", "Transpose", "Reshape", "Gather", "Cast")  # what leaves a weight a weight
WEIGHT_TYPES = tuple(FLOATS)
