"""Attention: one function for all forms, and ONNX's own operator.

Shapes: B sequences, H query heads, G key/value heads (H a multiple of G), T queries, S keys, d elements a head.
"""

from __future__ import annotations

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.format.limits import check_tensor_size
from ternrun.onnx.operators import rowwise
from ternrun.onnx.operators.matrices import multiply
from ternrun.onnx.operators.reducing import softmax
from ternrun.onnx.operators.rotary import as_heads, as_rows
from ternrun.onnx.operators.table import Array, Kernel, OpKernelInfo, operator, upcast_half


def attend(q: Array, k: Array, v: Array, scale: float, bias: Array | None, softcap: float = 0.0) -> Array:
    """softmax(scale q k^T + bias) v; q (B, H, T, d), k and v (B, G, S, d); bias broadcasts to (B, H, T, S).

    A query that sees no key gets zeros. Half types are computed in float32. Returns (B, H, T, d of v).
    """
    batch, heads, queries, width = q.shape
    groups, keys = k.shape[1:3]
    if k.shape[0] != batch or v.shape[:3] != k.shape[:3] or k.shape[3] != width or not groups or heads % groups:
        raise LoadError(f"queries {list(q.shape)}, keys {list(k.shape)} and values {list(v.shape)} do not fit")
    check_tensor_size((batch, heads, queries, keys))
    wide = upcast_half(q) * np.float32(scale) if q.dtype.itemsize < 8 else q * scale
    rows = wide.reshape(batch, groups, heads // groups * queries, width)
    scores = multiply(rows, upcast_half(k).swapaxes(-1, -2)).reshape(batch, heads, queries, keys)
    if softcap:
        scores = np.tanh(scores / softcap) * softcap
    if bias is not None:
        if np.broadcast_shapes(bias.shape, scores.shape) != scores.shape:
            raise LoadError(f"a mask of shape {list(bias.shape)} does not fit scores of {list(scores.shape)}")
        scores += bias
    weights = _weights(scores).reshape(batch, groups, -1 if scores.size else 0, keys)
    out = multiply(weights, upcast_half(v))
    return out.reshape(batch, heads, queries, v.shape[3]).astype(q.dtype, copy=False)


def _weights(scores: Array) -> Array:
    """Softmax of each row; zeros if the whole row is -inf."""
    if rowwise.is_large(scores):
        weights = rowwise.softmax(scores)
        if not np.isnan(weights[..., 0]).any():  # NaN marks a row that is all -inf
            return weights
    return softmax(scores)


def causal_bias(queries: int, keys: int, first: Array | int, window: int = -1) -> Array:
    """A bias (T, S), or (B, 1, T, S) if `first` has one entry for each sequence: 0 for visible keys, otherwise -inf.

    Query i has position first + i. It sees itself and earlier keys, but only the `window` latest unless window is -1.
    """
    position = np.asarray(first)[..., None, None, None] + np.arange(queries)[:, None]
    if np.ndim(first) == 0:
        position = position[0]
    key = np.arange(keys)
    hidden = key > position
    if window >= 0:
        hidden |= key <= position - window
    return np.where(hidden, np.float32(-np.inf), np.float32(0))


def as_bias(mask: Array, keys: int) -> Array:
    """A boolean mask (True: visible) or an additive mask as a float32 bias; keys past its end are hidden."""
    bias = np.where(mask, np.float32(0), np.float32(-np.inf)) if mask.dtype == np.bool_ else mask.astype(np.float32)
    missing = keys - bias.shape[-1]
    if missing > 0:
        bias = np.pad(bias, [(0, 0)] * (bias.ndim - 1) + [(0, missing)], constant_values=-np.inf)
    return bias


_UNUSUAL = ("softmax_precision", "qk_matmul_output_mode", "left_window_size", "right_window_size")


@operator("Attention", since=23)
def attention(info: OpKernelInfo) -> Kernel | None:
    """ONNX's Attention with its cache. The reference runs rare forms (score outputs, windows)."""
    if any(info.attributes.get(name, -1) not in (-1, 1) for name in _UNUSUAL) or len(info.node.outputs) > 3:
        return None
    heads, groups, is_causal = info.integer("q_num_heads"), info.integer("kv_num_heads"), info.integer("is_causal")
    stated, softcap, outputs = info.number("scale"), info.number("softcap"), len(info.node.outputs)

    def kernel(
        q: Array, k: Array, v: Array, mask: Array | None = None, past_k: Array | None = None,
        past_v: Array | None = None, lengths: Array | None = None,
    ) -> tuple[Array, ...]:  # fmt: skip
        if q.dtype.itemsize != 4 or (past_k is None) != (past_v is None):  # the reference rounds halves at every step
            return tuple(info.reference()(q, k, v, mask, past_k, past_v, lengths))
        flat = q.ndim == 3
        if flat:
            q, k, v = as_heads(q, heads), as_heads(k, groups), as_heads(v, groups)
        if past_k is not None and past_v is not None:
            k, v = np.concatenate((past_k, k), 2), np.concatenate((past_v, v), 2)
        queries, keys = q.shape[2], k.shape[2]
        bias = None if mask is None else as_bias(mask, keys)
        if is_causal:
            before = 0 if past_k is None else past_k.shape[2]
            seen = causal_bias(queries, keys, before if lengths is None else lengths.reshape(-1) - queries)
            bias = seen if bias is None else bias + seen
        if lengths is not None:
            reach = np.where(np.arange(keys) < lengths.reshape(-1, 1, 1, 1), np.float32(0), np.float32(-np.inf))
            bias = reach if bias is None else bias + reach
        out = attend(q, k, v, stated or float(q.shape[3]) ** -0.5, bias, softcap)
        return (as_rows(out) if flat else out, k, v)[:outputs]

    return kernel
