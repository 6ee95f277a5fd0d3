"""Read the rotary embedding of a head's elements: the pairs, their angles, and further factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ternrun.onnx.recognition.symbolic import LinearForm, Source
from ternrun.onnx.recognition.trace import Trace

Style = Literal["neox", "norm"]
_AT = 2  # the position at which angles are read: none exceeds half a circle there, and small ones are visible


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Queries or keys by head: rows `first` to `first + heads x D` of a linear, optionally normalized and rotated."""

    linear: Source
    norm: Source | None
    first: int
    scale: float  # factor on the elements that are not rotated, or on all
    style: Style
    dim: int  # number of rotated elements
    angles: NDArray[np.float64]  # (dim / 2) at position 1
    magnitude: float  # of cos and sin, over `scale`


def read_head(trace: Trace, form: LinearForm) -> Head:
    """The head of a form (1, heads, new, D). Raises UnrecognizedError if it is not of queries or keys."""
    _, heads, new, width = form.shape
    terms = [t for t in form.terms if t.coef.any()]
    if not terms or (form.const is not None and form.const.any()):
        raise trace.unsupported("queries or keys have a constant added after they were split into heads")
    top = trace.owner(int(terms[0].ids[terms[0].coef != 0][0]))
    norm = top if top.kind == "norm" else None
    below = _underlying(trace, top)
    linear = trace.owner(int(below.flat[0])) if below.size else top
    columns = linear.shape[-1]
    expected = np.arange(heads)[:, None, None] * width + np.arange(new)[:, None] * columns + np.arange(width)
    expected = expected[None]
    if linear.kind != "linear" or linear.size != new * columns:
        raise trace.unsupported(f"queries or keys come from a {linear.kind}, not from a projection")
    first: int | None = None
    same, other, partner = np.zeros(form.shape), np.zeros(form.shape), np.full(form.shape, -1)
    for term in terms:
        used = term.coef != 0
        if (term.ids[used] < top.base).any() or (term.ids[used] >= top.base + top.size).any():
            raise trace.unsupported("queries or keys are made of more than one projection")
        ids = np.zeros(form.shape, np.int64)
        ids[used] = below.ravel()[term.ids[used] - top.base] - linear.base
        relative = ids - expected + np.arange(width)  # column within the head, plus `first`
        if first is None:
            first = int(relative[0, 0, 0][used[0, 0, 0]].min()) if used[0, 0, 0].any() else 0
        relative -= first
        if (relative[used] < 0).any() or (relative[used] >= width).any():
            raise trace.unsupported("queries or keys are not split into heads in order")
        own = used & (relative == np.arange(width))
        same[own] += term.coef[own]
        away = used & ~own
        if (away & (partner >= 0) & (partner != relative)).any():
            raise trace.unsupported("queries or keys mix more than two elements")
        partner[away] = relative[away]
        other[away] += term.coef[away]
    assert first is not None
    return _turned(trace, linear, norm, first, same, other, partner)


def _underlying(trace: Trace, top: Source) -> NDArray[np.int64]:
    """The ids of the projection's elements that a norm's elements, or the projection's own, correspond to."""
    if top.kind != "norm":
        return np.arange(top.base, top.base + top.size)
    x: LinearForm = top.parts["x"]
    if len(x.terms) != 1 or x.const is not None or (x.terms[0].coef != 1).any():
        raise trace.unsupported("the norm of queries or keys is not over a projection")
    ids = x.terms[0].ids
    rows = ids.reshape(-1, ids.shape[-1])
    if (np.diff(rows, axis=1) != 1).any():
        raise trace.unsupported("the norm of queries or keys is not over one head")
    return ids


def _turned(trace: Trace, linear: Source, norm: Source | None, first: int, same: Any, other: Any, partner: Any) -> Head:
    """The common rotation of all heads. Raises UnrecognizedError if they differ."""
    width = same.shape[-1]
    if norm is not None and norm.shape[-1] != width:
        raise trace.unsupported("the norm of queries or keys is not over one head")
    if any((a != a[:, :1]).any() for a in (same, other)):
        raise trace.unsupported("heads are scaled or rotated differently")
    pairs = partner.max((0, 1, 2))
    dim = int((pairs >= 0).sum())
    still = np.arange(dim, width)
    if not dim:
        if (same != same.flat[0]).any():
            raise trace.unsupported("elements of queries or keys are scaled differently")
        return Head(linear, norm, first, float(same.flat[0]), "neox", 0, np.zeros(0), 1.0)
    half = dim // 2
    order = np.arange(dim)
    styles: dict[Style, Any] = {"neox": (order + half) % dim, "norm": order ^ 1}
    style = next((s for s, p in styles.items() if (pairs[:dim] == p).all()), None)
    if style is None or (partner >= 0)[..., still].any():
        raise trace.unsupported("it rotates other pairs than halves or neighbors")
    lower = order[:half] if style == "neox" else order[::2]
    cos, sin = same[0, 0][:, lower], -other[0, 0][:, lower]
    upper = styles[style][lower]
    if not np.allclose(same[0, 0][:, upper], cos) or not np.allclose(other[0, 0][:, upper], sin):
        raise trace.unsupported("its pairs are not rotated")
    at = _AT - trace.past
    size = np.hypot(cos, sin)
    angles = np.arctan2(sin[at], cos[at]) / _AT
    magnitude = float(np.sort(size.ravel())[size.size // 2])
    positions = np.arange(trace.past, trace.past + trace.new)[:, None]
    precision = 4e-3
    exact = magnitude * np.exp(1j * positions * angles)
    if (angles < 0).any() or not np.allclose(cos + 1j * sin, exact, atol=precision * magnitude):
        raise trace.unsupported("its angles do not grow with the position")
    scale = same[..., still]
    if scale.size and (scale != scale.flat[0]).any():
        raise trace.unsupported("elements of queries or keys are scaled differently")
    plain = float(scale.flat[0]) if scale.size else magnitude
    return Head(linear, norm, first, plain, style, dim, angles, magnitude / plain)
