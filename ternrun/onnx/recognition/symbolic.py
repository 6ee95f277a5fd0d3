"""Values that depend on the tokens, as linear forms: sums of elements of other values with known coefficients.

The tracer (`tracer.py`) runs a graph at a small, fixed size. A value that does not depend on the tokens is a numpy
array. A value that does is a `LinearForm`: each element is a sum of coefficient x element of a source (the output of a
projection, a norm, an attention...), plus a constant. Operators that move elements (Reshape, Transpose, Concat, Slice,
Expand), rotate them (RoPE) or add residuals turn forms into forms, so a decoder can be read by comparing numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Known = NDArray[Any]


@dataclass(slots=True, eq=False)
class Source:
    """The origin of a block of elements; `base` is the id of the first. `rules.py` lists the kinds and their parts."""

    kind: str
    shape: tuple[int, ...]
    base: int
    node: Any  # the Node that produced it, for messages
    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def form(self) -> LinearForm:
        """The form of all elements in order."""
        ids = np.arange(self.base, self.base + self.size).reshape(self.shape)
        return LinearForm((Term(np.ones(self.shape), ids),), None, self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """Coefficients and element ids, each of the form's shape."""

    coef: Floats
    ids: Ids


@dataclass(frozen=True, slots=True, eq=False)
class LinearForm:
    """terms + const, element by element; `const` None is zero."""

    terms: tuple[Term, ...]
    const: Floats | None
    shape: tuple[int, ...]

    def view(self, move: Callable[[Any], Any]) -> LinearForm:
        """The form whose elements `move` takes from this form's (an array of ids, coefficients or constants)."""
        terms = tuple(Term(move(t.coef), move(t.ids)) for t in self.terms)
        const = None if self.const is None else move(self.const)
        return LinearForm(terms, const, terms[0].ids.shape if terms else const.shape if const is not None else ())

    def times(self, factor: Known | float) -> LinearForm:
        """Each element times a factor; shapes broadcast."""
        factor = np.asarray(factor, np.float64)
        shape = np.broadcast_shapes(self.shape, factor.shape)
        terms = tuple(Term(np.broadcast_to(t.coef * factor, shape), np.broadcast_to(t.ids, shape)) for t in self.terms)
        return LinearForm(terms, None if self.const is None else np.broadcast_to(self.const * factor, shape), shape)

    def plus(self, other: LinearForm | Known) -> LinearForm:
        """The sum; shapes broadcast."""
        shape = np.broadcast_shapes(self.shape, other.shape)
        if not isinstance(other, LinearForm):
            other = LinearForm((), np.asarray(other, np.float64), other.shape)
        terms = [
            t if t.ids.shape == shape else Term(np.broadcast_to(t.coef, shape), np.broadcast_to(t.ids, shape))
            for t in (*self.terms, *other.terms)
        ]
        consts = [np.broadcast_to(c, shape) for c in (self.const, other.const) if c is not None]
        return LinearForm(tuple(terms), _total(consts), shape)

    def same(self, other: LinearForm) -> bool:
        """Whether both forms are equal, term by term."""
        if self.shape != other.shape or len(self.terms) != len(other.terms):
            return False
        a, b = (np.broadcast_to(0.0 if f.const is None else f.const, self.shape) for f in (self, other))
        return np.array_equal(a, b) and all(
            s is t or (np.array_equal(s.ids, t.ids) and np.array_equal(s.coef, t.coef))
            for s, t in zip(self.terms, other.terms, strict=True)
        )

    def ratio(self, other: LinearForm) -> float | None:
        """The number c with self = c * other, or None."""
        if self.shape != other.shape or len(self.terms) != len(other.terms) or not self.terms:
            return None
        scale = _ratio(self.terms[0].coef, other.terms[0].coef)
        if scale is None:
            return None
        return scale if self.same(other.times(scale)) else None


def _ratio(a: Floats, b: Floats) -> float | None:
    if not b.size or b.flat[0] == 0:
        return None
    return float(a.flat[0] / b.flat[0])


def concat(parts: Sequence[LinearForm | Known], axis: int) -> LinearForm:
    """The concatenation of parts; missing terms of a part count as zero."""
    forms = [p if isinstance(p, LinearForm) else LinearForm((), np.asarray(p, np.float64), p.shape) for p in parts]
    most = max(len(f.terms) for f in forms)

    def term(form: LinearForm, n: int) -> Term:
        if n < len(form.terms):
            return form.terms[n]
        return Term(np.zeros(form.shape), np.zeros(form.shape, np.int64))

    columns = [[term(f, n) for f in forms] for n in range(most)]
    terms = tuple(
        Term(np.concatenate([t.coef for t in c], axis), np.concatenate([t.ids for t in c], axis)) for c in columns
    )
    consts = [np.zeros(f.shape) if f.const is None else np.broadcast_to(f.const, f.shape) for f in forms]
    const = np.concatenate(consts, axis) if any(f.const is not None for f in forms) else None
    whole = const if const is not None else terms[0].ids
    return LinearForm(terms, const, whole.shape)


def rotate(x: LinearForm, cos: Any, sin: Any, *, interleaved: bool) -> LinearForm:
    """x (..., D) rotated by angles with cos and sin (..., d/2), d <= D; elements from d on do not change."""
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


def where(condition: Known, a: LinearForm | Known, b: LinearForm | Known) -> LinearForm:
    """Elements of `a` where the condition holds, otherwise of `b`."""
    shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
    keep = np.broadcast_to(condition, shape)

    def masked(value: LinearForm | Known, mask: Known) -> LinearForm:
        form = value if isinstance(value, LinearForm) else LinearForm((), np.asarray(value, np.float64), value.shape)
        terms = tuple(Term(np.where(mask, t.coef, 0.0), np.broadcast_to(t.ids, shape)) for t in form.terms)
        const = None if form.const is None else np.where(mask, form.const, 0.0)
        return LinearForm(terms, const, shape)

    left, right = masked(a, keep), masked(b, ~keep)
    terms = tuple(t for t in (*left.terms, *right.terms) if t.coef.any())
    consts = [c for c in (left.const, right.const) if c is not None]
    return LinearForm(terms, _total(consts), shape)


def _total(consts: Sequence[Floats]) -> Floats | None:
    return np.sum(consts, axis=0) if consts else None
