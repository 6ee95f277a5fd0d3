"""Attention as onnxruntime fuses it: GroupQueryAttention, MultiHeadAttention and Attention of com.microsoft.

Documented at https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.format.limits import check_tensor_size
from ternrun.onnx.operators.attention import attend, causal_bias
from ternrun.onnx.operators.matrices import multiply
from ternrun.onnx.operators.rotary import as_heads, as_rows, look_up, rotate
from ternrun.onnx.operators.table import MICROSOFT, Array, Kernel, OpKernelInfo, operator, same_type, upcast_half


def _refuse(info: OpKernelInfo, *unsupported: str) -> None:
    """Raises LoadError if an unsupported attribute is set."""
    for name in unsupported:
        if info.attributes.get(name):
            raise LoadError(f"has {name}={str(info.attributes[name])[:40]}, which is not supported")


@operator("GroupQueryAttention", domains=(MICROSOFT,))
def group_query_attention(info: OpKernelInfo) -> Kernel:
    """Causal attention with a cache (B, G, S, d). After this step sequence b has seqlens_k[b] + 1 tokens."""
    heads, groups = info.integer("num_heads"), info.integer("kv_num_heads")
    turn, interleaved = info.integer("do_rotary"), bool(info.integer("rotary_interleaved"))
    scale, softcap, window = info.number("scale"), info.number("softcap"), info.integer("local_window_size", -1)
    _refuse(info, "smooth_softmax", "qk_output", "kv_cache_bit_width")

    def kernel(
        q: Array, k: Array | None, v: Array | None, past_k: Array | None, past_v: Array | None, lengths: Array,
        total: Array, cos: Array | None = None, sin: Array | None = None, positions: Array | None = None,
        bias: Array | None = None, sinks: Array | None = None, *more: Array | None,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        if sinks is not None or any(m is not None for m in more):
            raise LoadError("has head sinks or a quantized cache, which are not supported")
        q, k, v = _unpacked(q, k, v, heads, groups)
        batch, _, tokens, width = q.shape
        most = int(total.reshape(()))
        ends = lengths.reshape(-1).astype(np.int64) + 1
        if ends.size != batch or ends.min(initial=1) < 1 or ends.max(initial=0) > most:
            raise LoadError(f"lengths {str(ends.tolist())[:60]} do not fit {batch} sequences of {most} tokens")
        first = np.zeros_like(ends) if tokens == most else ends - tokens  # prompts are padded on the right
        if turn:
            if cos is None or sin is None:
                raise LoadError("rotates its heads but has no tables of cos and sin")
            at = first[:, None] + np.arange(tokens) if positions is None else positions.reshape(batch, tokens)
            cos, sin = (upcast_half(look_up(t, at, tokens))[:, None] for t in (cos, sin))
            q, k = (rotate(upcast_half(x), cos, sin, interleaved).astype(x.dtype, copy=False) for x in (q, k))
        keys, values = (_extended(p, x, first, most) for p, x in ((past_k, k), (past_v, v)))
        seen = None if _all_seen(tokens, window, ends, keys) else causal_bias(tokens, keys.shape[2], first, window)
        if bias is not None:
            seen = _plus(seen, _reaching(bias.astype(np.float32), keys.shape[2]))
        out = attend(q, keys, values, scale or width**-0.5, seen, softcap)
        return as_rows(out), keys, values

    return kernel


def _all_seen(tokens: int, window: int, ends: Array, keys: Array) -> bool:
    """Whether every query sees every key, as in decoding, where a mask would cost as much as the rest."""
    return tokens == 1 and window < 0 and bool((ends == keys.shape[2]).all())


def _unpacked(q: Array, k: Array | None, v: Array | None, heads: int, groups: int) -> tuple[Array, Array, Array]:
    """The heads of q, k and v, which may be packed in one tensor."""
    if k is None or v is None:
        packed = as_heads(q, heads + 2 * groups)
        return packed[:, :heads], packed[:, heads : heads + groups], packed[:, heads + groups :]
    return as_heads(q, heads), as_heads(k, groups), as_heads(v, groups)


def _extended(past: Array | None, new: Array, first: Array, most: int) -> Array:
    """The cache with `new` (B, G, T, d) written at each sequence's `first`, long enough for `most` tokens."""
    batch, groups, tokens, width = new.shape
    held = 0 if past is None else past.shape[2]
    if past is not None and (past.ndim != 4 or past.shape[:2] + past.shape[3:] != (batch, groups, width)):
        raise LoadError(f"a cache of shape {list(past.shape)} does not fit keys of {list(new.shape)}")
    if first.min(initial=0) < 0 or first.max(initial=0) > held or (first + tokens).max(initial=0) > max(held, most):
        raise LoadError(f"a cache of {held} tokens cannot be continued at {str(first.tolist())[:60]}")
    if past is not None:
        same_type(past, new)
        if (first == held).all() and held + tokens >= most:
            return np.concatenate((past, new), 2)
    check_tensor_size((batch, groups, max(held, most), width), new.itemsize)
    out = np.zeros((batch, groups, max(held, most), width), new.dtype)
    if past is not None:
        out[:, :, :held] = past
    for b, at in enumerate(first.tolist()):
        out[b, :, at : at + tokens] = new[b]
    return out


def _reaching(bias: Array, keys: int) -> Array:
    """The bias for the first `keys` keys. Raises LoadError if it is shorter."""
    if bias.shape[-1] < keys:
        raise LoadError(f"an attention bias over {bias.shape[-1]} keys does not reach {keys}")
    return bias[..., :keys]


@operator("MultiHeadAttention", domains=(MICROSOFT,))
def multi_head_attention(info: OpKernelInfo) -> Kernel:
    """q, k, v in separate tensors or packed, with bias, masks and a cache (B, H, S, d)."""
    heads, outputs, finish = info.integer("num_heads"), len(info.node.outputs), _finish(info)

    def kernel(
        q: Array, k: Array | None = None, v: Array | None = None, bias: Array | None = None,
        padding: Array | None = None, scores: Array | None = None, past_k: Array | None = None,
        past_v: Array | None = None, *more: Array | None,
    ) -> tuple[Array, ...]:  # fmt: skip
        if any(m is not None for m in more):
            raise LoadError("shares its cache's buffer or has an indirection, which is not supported")
        q, k, v = _parts(q, k, v, bias, heads)
        if past_k is not None and past_v is not None:
            k, v = np.concatenate((past_k, k), 2), np.concatenate((past_v, v), 2)
        return (finish(q, k, v, scores, padding), k, v)[:outputs]

    return kernel


def _finish(info: OpKernelInfo) -> Callable[[Array, Array, Array, Array | None, Array | None], Array]:
    """A function from heads of q, k and v, additive scores and a key mask to rows (B, T, H d), by the node's
    attributes.
    """
    scale, one_way = info.number("scale"), info.integer("unidirectional")
    hidden = info.number("mask_filter_value", -10000.0)

    def finish(q: Array, k: Array, v: Array, scores: Array | None, mask: Array | None) -> Array:
        queries, keys = q.shape[2], k.shape[2]
        extra: Array | None = None if scores is None else scores.astype(np.float32)
        if mask is not None:
            extra = _plus(extra, padding_bias(mask, q.shape[0], keys, hidden))
        if one_way:
            extra = _plus(extra, causal_bias(queries, keys, keys - queries))
        return as_rows(attend(q, k, v, scale or q.shape[3] ** -0.5, extra))

    return finish


def _plus(a: Array | None, b: Array) -> Array:
    """The sum of an optional and another bias."""
    return b if a is None else a + b


def _parts(q: Array, k: Array | None, v: Array | None, bias: Array | None, heads: int) -> tuple[Array, Array, Array]:
    """Heads of q, k, v from (B, T, H d) each, (B, T, H, 3, d) packed, (B, S, H, 2, d) next to q, or (B, H, S, d)."""
    if q.ndim == 5:
        parts = [q[:, :, :, i].swapaxes(1, 2) for i in range(3)]
    elif k is not None and k.ndim == 5:
        parts = [as_heads(q, heads), k[:, :, :, 0].swapaxes(1, 2), k[:, :, :, 1].swapaxes(1, 2)]
    elif k is None or v is None:
        raise LoadError("has no keys or no values")
    else:
        parts = [x if x.ndim == 4 else as_heads(x, heads) for x in (q, k, v)]
    if bias is not None:
        widths = [p.shape[1] * p.shape[3] for p in parts]
        if bias.shape != (sum(widths),):
            raise LoadError(f"a bias of shape {list(bias.shape)} does not fit widths {widths}")
        each = np.split(bias, np.cumsum(widths)[:-1])
        parts = [p + b.reshape(1, p.shape[1], 1, -1) for p, b in zip(parts, each, strict=True)]
    return parts[0], parts[1], parts[2]


def padding_bias(mask: Array, batch: int, keys: int, hidden: float) -> Array:
    """The bias of a key mask (B, S) or (B, T, S), or of the number of valid keys (B,)."""
    if mask.ndim == 1 and mask.size == batch:
        mask = np.arange(keys) < mask[:, None]
    if mask.ndim not in (2, 3) or mask.shape[-1] != keys:
        raise LoadError(f"a mask of shape {list(mask.shape)} is not supported over {keys} keys")
    bias = np.where(mask != 0, np.float32(0), np.float32(hidden))
    return bias[:, None, None] if mask.ndim == 2 else bias[:, None]


@operator("Attention", domains=(MICROSOFT,))
def microsoft_attention(info: OpKernelInfo) -> Kernel:
    """Attention with its projection: x (B, T, D) times weights (D, 3 H d)."""
    heads, outputs, finish = info.integer("num_heads"), len(info.node.outputs), _finish(info)
    _refuse(info, "do_rotary", "past_present_share_buffer")
    sizes = info.integers("qkv_hidden_sizes")

    def kernel(
        x: Array, weights: Array, bias: Array | None = None, mask: Array | None = None, past: Array | None = None,
        scores: Array | None = None, *more: Array | None,
    ) -> tuple[Array, ...]:  # fmt: skip
        if any(m is not None for m in more) or x.ndim != 3 or weights.ndim != 2 or heads < 1:
            raise LoadError("has inputs of a form that is not supported")
        rows = multiply(upcast_half(x), upcast_half(weights))
        if bias is not None:
            rows = rows + bias
        third = rows.shape[2] // 3
        ends = (third, 2 * third) if sizes is None else (sizes[0], sizes[0] + sizes[1])
        q, k, v = (as_heads(p.astype(x.dtype, copy=False), heads) for p in np.split(rows, ends, 2))
        if past is not None:
            if past.ndim != 5 or past.shape[0] != 2:
                raise LoadError(f"a cache of shape {list(past.shape)} does not fit")
            k, v = np.concatenate((past[0], k), 2), np.concatenate((past[1], v), 2)
        return (finish(q, k, v, scores, mask), np.stack((k, v)))[:outputs]

    return kernel
