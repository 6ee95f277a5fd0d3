"""Values that are a function of each element of another value: activations, powers, parts of norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ternrun.onnx.format.graph import Node
from ternrun.onnx.recognition.symbolic import LinearForm, Source
from ternrun.onnx.recognition.trace import Trace

Function = Callable[[Any], Any]
GRID = np.linspace(-6, 6, 49)  # points at which functions are compared


def single_source(trace: Trace, form: Any, *kinds: str) -> tuple[Source, float] | None:
    """The source whose elements, all in order, are the form, and the factor that multiplies them; None if there is
    none.
    """
    if not isinstance(form, LinearForm) or len(form.terms) != 1 or (form.const is not None and form.const.any()):
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


def pointwise(trace: Trace, form: LinearForm) -> tuple[LinearForm, Function]:
    """The form as a function of each element of another form, or of itself."""
    for i, term in enumerate(form.terms):
        found = single_source(trace, LinearForm((term,), None, form.shape), "pointwise")
        if found is None:
            continue
        (source, scale), rest = found, (*form.terms[:i], *form.terms[i + 1 :])
        x, f = source.parts["x"], source.parts["f"]
        const = 0.0 if form.const is None else form.const.flat[0]
        if form.const is not None and (form.const != const).any():
            continue
        slope = LinearForm(rest, None, form.shape).ratio(x) if rest else 0.0
        if slope is not None and x.shape == form.shape:
            return x, _affine(f, scale, slope, const)
    if form.const is not None and form.terms and (form.const == (shift := form.const.flat[0])).all():
        return LinearForm(form.terms, None, form.shape), lambda t: t + shift
    return form, lambda t: t


def _affine(f: Function, scale: float, slope: float, const: float) -> Function:
    return lambda t: scale * f(t) + slope * t + const


def unary(function: Function) -> Callable[[Trace, Node, list[Any]], Any]:
    """A rule that applies a function to each element."""

    def rule(trace: Trace, _: Node, args: list[Any]) -> LinearForm:
        return apply(trace, args[0], function)

    return rule


def apply(trace: Trace, form: LinearForm, function: Function) -> LinearForm:
    """Apply a function to each element of a form."""
    x, f = pointwise(trace, form)
    return trace.source("pointwise", form.shape, x=x, f=lambda t: function(f(t))).form()


def rescaled(f: Function, outer: float, inner: float) -> Function:
    """outer * f(inner * t)."""
    return lambda t: outer * f(inner * t)


def multiplied(f: Function, g: Function) -> Function:
    """f(t) * g(t)."""
    return lambda t: f(t) * g(t)


def power(trace: Trace, _: Node, args: list[Any]) -> LinearForm:
    """Pow by one number."""
    if not isinstance(args[1], np.ndarray) or args[1].size != 1:
        raise trace.unsupported("the power is not one number")
    power = float(args[1].item())
    return apply(trace, args[0], lambda t: np.asarray(t, np.float64) ** power)


def gelu(trace: Trace, node: Node, args: list[Any]) -> LinearForm:
    """Gelu and FastGelu. The engine supports the form with tanh."""
    if node.attributes.get("approximate", "none") != "tanh" and node.op == "Gelu":
        raise trace.unsupported("the engine supports GELU with tanh, not with erf")
    return apply(trace, args[0], ACTIVATIONS["gelu"])


def swish(trace: Trace, node: Node, args: list[Any]) -> LinearForm:
    """Swish and QuickGelu: t * sigmoid(alpha t)."""
    alpha = float(node.attributes.get("alpha", 1.0))
    return apply(trace, args[0], lambda t: t / (1 + np.exp(-alpha * t)))


def erf(trace: Trace, _: Node, __: list[Any]) -> LinearForm:
    """Erf. Only exact GELU uses it, which the engine does not support."""
    raise trace.unsupported("the engine supports GELU with tanh, not with erf")


ACTIVATIONS: dict[str, Function] = {
    "silu": lambda t: t / (1 + np.exp(-t)),
    "gelu": lambda t: 0.5 * t * (1 + np.tanh(np.sqrt(2 / np.pi) * (t + 0.044715 * t**3))),
    "relu2": lambda t: np.maximum(t, 0) ** 2,
}


def activation_of(trace: Trace, form: LinearForm) -> tuple[str, LinearForm] | None:
    """The engine's activation that the form applies, and its argument; None for another function."""
    x, f = pointwise(trace, form)
    for name, function in ACTIVATIONS.items():
        if np.allclose(f(GRID), function(GRID), rtol=2e-3, atol=2e-4):
            return name, x
    return None
