"""Rules for attention, fused or decomposed: each becomes one source with q, k and v of the new tokens, scale and
window.

The graph must treat cached keys and values like new ones: the cache holds the outputs `present`, and query head h reads
key head h // group size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ternrun.onnx.format.graph import Node
from ternrun.onnx.recognition.pointwise import single_source
from ternrun.onnx.recognition.symbolic import LinearForm, Source, rotate
from ternrun.onnx.recognition.trace import Trace

_MASKED = -1e4  # mask values up to this contribute nothing to a softmax


def attend(trace: Trace, probabilities: LinearForm, v: LinearForm) -> LinearForm:
    """Join softmax(scale q k^T + mask) v from separate operators, after checking the parts."""
    found = single_source(trace, probabilities, "probabilities")
    assert found
    logits: LinearForm = found[0].parts["x"]
    scores = single_source(trace, LinearForm(logits.terms, None, logits.shape), "scores")
    if scores is None or found[1] != 1:
        raise trace.unsupported("its softmax is not over the products of queries and keys")
    source, scale = scores
    q, k = source.parts["q"], source.parts["k"]
    if any(len(f.shape) == 3 for f in (q, k, v)):  # heads as a batch
        q, k, v = (f.view(lambda a: a.reshape(1, -1, *a.shape[-2:])) for f in (q, k, v))
        logits = logits.view(lambda a: a.reshape(1, -1, *a.shape[-2:]))
    _check_mask(trace, logits)
    form = _joined(trace, _four(trace, q), _four(trace, k), _four(trace, v), scale)
    return form if len(probabilities.shape) == 4 else form.view(lambda a: a.reshape(-1, *a.shape[-2:]))


def _joined(trace: Trace, q: LinearForm, k: LinearForm, v: LinearForm, scale: float) -> LinearForm:
    """The attention over keys and values (1, heads, cached and new, D), which may be repeated for every query head."""
    k_new, k_scale, shared = _current(trace, k)
    v_new, v_scale, v_shared = _current(trace, v)
    if shared != v_shared or q.shape[1] % shared:
        raise trace.unsupported("its queries share keys and values unevenly")
    joined = trace.source(
        "attention", (1, q.shape[1], q.shape[2], v.shape[3]), q=q, k=k_new, v=v_new, scale=scale * k_scale, window=0,
        cached=trace.cached,
    )  # fmt: skip
    return joined.form().times(v_scale)


def _four(trace: Trace, form: LinearForm) -> LinearForm:
    """The form with four dimensions (1, heads, tokens, D)."""
    if len(form.shape) == 5:  # groups of heads as an axis of their own
        return form.view(lambda a: a.reshape(1, -1, *a.shape[-2:]))
    if len(form.shape) != 4 or form.shape[0] != 1:
        raise trace.unsupported(f"queries, keys or values have the shape {list(form.shape)}")
    return form


def _check_mask(trace: Trace, logits: LinearForm) -> None:
    """Check that the mask adds zero for tokens up to each token's own, and hides later ones."""
    new, past = trace.new, trace.past
    visible = np.arange(past + new) <= np.arange(past, past + new)[:, None]
    const = np.zeros(logits.shape) if logits.const is None else logits.const
    if logits.shape[-2:] != visible.shape:
        raise trace.unsupported(f"it sees {list(logits.shape[-2:])} of {list(visible.shape)} pairs of tokens")
    seen = np.broadcast_to(visible, logits.shape)
    if const[seen].any() or (const[~seen] > _MASKED).any():
        raise trace.unsupported("its mask is not the causal one")


def _current(trace: Trace, form: LinearForm) -> tuple[LinearForm, float, int]:
    """The new tokens' part of keys or values by key head, a factor on all of them, and the number of key heads."""
    heads, past = form.shape[1], trace.past
    shared = _distinct(form)
    first = form.view(lambda a: a[:, :: heads // shared])
    if heads % shared or not first.view(lambda a: np.repeat(a, heads // shared, 1)).same(form):
        raise trace.unsupported("its query heads do not share key heads in order")
    new = first.view(lambda a: a[:, :, past:])
    if not past:
        return new, 1.0, shared
    old = first.view(lambda a: a[:, :, :past])
    live = [t for t in old.terms if t.coef.any()]
    found = single_source(trace, LinearForm(tuple(live), old.const, old.shape), "past")
    if found is None or found[0].shape != old.shape:
        raise trace.unsupported("its cached keys or values do not come from one input in their own order")
    return new.times(1 / found[1]), found[1], shared


def _distinct(form: LinearForm) -> int:
    """The number of different heads."""
    seen = set()
    for head in range(form.shape[1]):
        one = form.view(lambda a, h=head: a[:, h])  # type: ignore[misc]
        seen.add(tuple((t.coef.tobytes(), t.ids.tobytes()) for t in one.terms))
    return len(seen)


def _heads(form: LinearForm, heads: int) -> LinearForm:
    """(1, S, heads x D) as (1, heads, S, D)."""
    return form.view(lambda a: a.reshape(1, a.shape[1], heads, -1).swapaxes(1, 2))


def _fused(trace: Trace, q: LinearForm, k: LinearForm, v: LinearForm, scale: float, window: int) -> Source:
    """The source of a fused attention operator."""
    shape = (1, q.shape[1], q.shape[2], v.shape[3])
    scale = scale or q.shape[-1] ** -0.5
    return trace.source("attention", shape, q=q, k=k, v=v, scale=scale, window=window, cached=trace.cached)


def _presents(trace: Trace, k: LinearForm, v: LinearForm) -> tuple[LinearForm, LinearForm]:
    """The outputs that continue the cache."""
    total = trace.past + trace.new
    made = [trace.source("present", (1, f.shape[1], total, f.shape[3])).form() for f in (k, v)]
    return made[0], made[1]


def _group_query(trace: Trace, node: Node, args: list[Any]) -> Any:
    """com.microsoft.GroupQueryAttention."""
    args = [*args, *[None] * (12 - len(args))]
    get = node.attributes.get
    heads, shared = int(node.attributes["num_heads"]), int(node.attributes["kv_num_heads"])
    if get("softcap", 0.0) or get("smooth_softmax", 0) > 0 or args[10] is not None or args[11] is not None:
        raise trace.unsupported("softcap, smooth softmax, attention bias and sinks are not supported")
    if any(get(k, "NONE") != "NONE" for k in ("k_quant_type", "v_quant_type")):
        raise trace.unsupported("a quantized cache is not supported")
    q, k, v = args[:3]
    if k is None:  # packed
        width = q.shape[-1] // (heads + 2 * shared)
        cuts = (0, heads * width, (heads + shared) * width, (heads + 2 * shared) * width)
        q, k, v = (args[0].view(lambda a, i=i: a[..., cuts[i] : cuts[i + 1]]) for i in range(3))
    q, k, v = _heads(q, heads), _heads(k, shared), _heads(v, shared)
    if get("do_rotary", 0):
        tables = [a.array() if not isinstance(a, np.ndarray) else a for a in args[7:9]]
        cos, sin = (_rows(trace, t) for t in tables)
        q, k = (rotate(f, cos, sin, interleaved=bool(get("rotary_interleaved", 0))) for f in (q, k))
    joined = _fused(trace, q, k, v, get("scale", 0.0), max(get("local_window_size", -1), 0))
    out = joined.form().view(lambda a: a.swapaxes(1, 2).reshape(1, trace.new, -1))
    return (out, *_presents(trace, k, v))


def _rows(trace: Trace, table: Any) -> Any:
    """The rows of an angle table for the new tokens."""
    trace.tables = max(trace.tables, len(table))
    return table[trace.past : trace.past + trace.new].astype(np.float64)


def _attention(trace: Trace, node: Node, args: list[Any]) -> Any:
    """ONNX's own Attention (opset 23)."""
    q, k, v, mask, past_k, past_v, _lengths = [*args, *[None] * 7][:7]
    get = node.attributes.get
    if get("softcap", 0.0) or (past_k is None) != (past_v is None):
        raise trace.unsupported("softcap, and a cache of keys without values, are not supported")
    flat = len(q.shape) == 3
    if flat:
        heads, shared = int(node.attributes["q_num_heads"]), int(node.attributes["kv_num_heads"])
        q, k, v = _heads(q, heads), _heads(k, shared), _heads(v, shared)
    shape = (1, q.shape[1], trace.new, trace.new + trace.past)
    const = np.zeros(shape) if mask is None else mask
    if const.dtype == bool:
        const = np.where(const, 0.0, -np.inf)
    if get("is_causal", 0):
        const = const + np.triu(np.full(shape[-2:], -np.inf), 1 + trace.past)
    _check_mask(trace, LinearForm((), np.broadcast_to(const, shape).astype(np.float64), shape))
    if past_k is None:  # the cache is joined outside, or there is none
        out = _joined(trace, q, k, v, get("scale", 0.0) or q.shape[-1] ** -0.5)
    else:
        out = _fused(trace, q, k, v, get("scale", 0.0), 0).form()
    if flat:
        out = out.view(lambda a: a.swapaxes(1, 2).reshape(1, trace.new, -1))
    return out if past_k is None else (out, *_presents(trace, k, v))


def _multi_head(trace: Trace, node: Node, args: list[Any]) -> Any:
    """com.microsoft.MultiHeadAttention whose cache is joined outside of it."""
    q, k, v, bias, padding, mask, past_k, past_v = [*args, *[None] * 8][:8]
    heads = node.attributes["num_heads"]
    if any(a is not None for a in (bias, padding, past_k, past_v)) or k is None or v is None:
        raise trace.unsupported("its bias, padding mask and own cache are not supported")
    q, k, v = (_heads(f, heads) if len(f.shape) == 3 else f for f in (q, k, v))
    shape = (1, heads, trace.new, k.shape[2])
    const = np.zeros(shape) if mask is None else mask
    if node.attributes.get("unidirectional", 0):
        const = const + np.triu(np.full(shape[-2:], -np.inf), 1 + trace.past)
    _check_mask(trace, LinearForm((), np.broadcast_to(const, shape).astype(np.float64), shape))
    out = _joined(trace, q, k, v, node.attributes.get("scale", 0.0) or q.shape[-1] ** -0.5)
    return out.view(lambda a: a.swapaxes(1, 2).reshape(1, trace.new, -1))


def _rotary(trace: Trace, node: Node, args: list[Any]) -> LinearForm:
    """RotaryEmbedding, ONNX's (X, cos, sin, positions) or com.microsoft's (X, positions, cos, sin)."""
    x, *rest = args
    positions, cos, sin = (rest if node.domain else [*rest[2:], None][:1] + rest[:2])[:3]
    get = node.attributes.get
    if get("scale", 1.0) != 1.0 or get("is_packed_batching", 0):
        raise trace.unsupported("scaled and packed rotations are not supported")
    cos, sin = (a if isinstance(a, np.ndarray) else a.array() for a in (cos, sin))
    trace.tables = max(trace.tables, len(cos) if cos.ndim == 2 else 0)
    if positions is not None:
        if positions.size == 1:  # com.microsoft's: of the first token
            positions = positions.reshape(1, 1) + np.arange(trace.new)[None]
        cos, sin = cos[positions], sin[positions]
    cos, sin = (a.astype(np.float64).reshape(1, 1, trace.new, -1) for a in (cos, sin))
    flat = len(x.shape) == 3
    heads = get("num_heads", 0)
    if flat and not heads:
        heads = x.shape[-1] // (2 * cos.shape[-1])
    rotated = rotate(_heads(x, heads) if flat else x, cos, sin, interleaved=bool(get("interleaved", 0)))
    return rotated.view(lambda a: a.swapaxes(1, 2).reshape(1, trace.new, -1)) if flat else rotated


ATTENTION_RULES: dict[str, Callable[[Trace, Node, list[Any]], Any]] = {
    "GroupQueryAttention": _group_query,
    "Attention": _attention,
    "MultiHeadAttention": _multi_head,
    "RotaryEmbedding": _rotary,
}
