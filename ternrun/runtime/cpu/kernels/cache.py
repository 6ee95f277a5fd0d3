"""Store keys and values in the paged KV cache (layout: `kv_block.py`), one kernel for each cache type.

Queries and keys are normalized (RMSNorm) if the model has such norms, and rotated (RoPE, arXiv 2104.09864).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile.jit import compiled, share
from ternrun.runtime.cpu.compile.lanes import shuffler, splat, zero
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store, store_scalar
from ternrun.runtime.cpu.compile.vectors import f32x16
from ternrun.runtime.cpu.kernels.functions import inverse_rms
from ternrun.runtime.cpu.kernels.kv_block import BLOCK, WRITE, block_of, key_steps_bytes, position_of

TOKENS = layout.STATE["tokens"]
_even = shuffler(f32x16, tuple(range(0, 32, 2)))
_odd = shuffler(f32x16, tuple(range(1, 32, 2)))
_zip_low = shuffler(f32x16, tuple(i // 2 + 16 * (i % 2) for i in range(16)))
_zip_high = shuffler(f32x16, tuple(8 + i // 2 + 16 * (i % 2) for i in range(16)))


@compiled
def _copy_head(src: int, n: int, dst: int) -> None:
    """Copy n floats, padded with zeros to a multiple of 16."""
    for i in range(0, n - 15, 16):
        store(dst + 4 * i, load(f32x16, src + 4 * i))
    if n % 16:
        store(dst + 4 * (n // 16 * 16), zero(f32x16))
        for i in range(n // 16 * 16, n):
            store_scalar(dst + 4 * i, load_scalar(types.float32, src + 4 * i))


@compiled
def _normalize(x: int, n: int, weight: int, eps: Any) -> None:
    """x = x / rms(x) * weight for n floats, in place."""
    inverse = splat(f32x16, inverse_rms(x, n, eps))
    for i in range((n + 15) // 16):
        store(x + 64 * i, load(f32x16, x + 64 * i) * inverse * load(f32x16, weight + 64 * i))


@compiled
def _rotate(x: int, half: int, interleaved: int, cos: int, sin: int) -> None:
    """Rotate pairs (i, i + half), or (2i, 2i + 1) if interleaved, by the angles of one position, in place."""
    whole = half // 16 * 16
    for i in range(0, whole, 16):
        c, s = load(f32x16, cos + 4 * i), load(f32x16, sin + 4 * i)
        low, high = (x + 8 * i, x + 8 * i + 64) if interleaved else (x + 4 * i, x + 4 * (i + half))
        a, b = load(f32x16, low), load(f32x16, high)
        if interleaved:
            a, b = _even(a, b), _odd(a, b)
        p, q = a * c - b * s, a * s + b * c
        if interleaved:
            p, q = _zip_low(p, q), _zip_high(p, q)
        store(low, p)
        store(high, q)
    for i in range(whole, half):
        low, high = (x + 8 * i, x + 8 * i + 4) if interleaved else (x + 4 * i, x + 4 * (i + half))
        first, second = load_scalar(types.float32, low), load_scalar(types.float32, high)
        cosine, sine = load_scalar(types.float32, cos + 4 * i), load_scalar(types.float32, sin + 4 * i)
        store_scalar(low, first * cosine - second * sine)
        store_scalar(high, first * sine + second * cosine)


def build(entry: str) -> Callable[..., Any]:
    """Entries: f16, f32, int8."""
    size, write = layout.KV_SIZE[entry], WRITE[entry]

    @compiled
    def store_tokens(args: Any, tid: int, nt: int) -> int:
        """Store queries in `out`, rows of heads padded to 16, and keys and values in the cache.

        `q_norm`, `k_norm`: addresses of norm weights; 0: no norm.
        """
        state, heads, kv_heads, dim, half = (
            args.state,
            args.heads,
            args.kv_heads,
            args.head_dim,
            args.rope_dim // 2,
        )
        eps, x, padded = args.eps, args.scratch + args.scratch_stride * tid, (dim + 15) // 16 * 16
        per_token = heads + 2 * kv_heads
        first, last = share(load_scalar(types.int64, state + TOKENS) * per_token, tid, nt)
        for task in range(first, last):
            t, head = task // per_token, task % per_token
            position = position_of(state, t)
            _copy_head(args.qkv + 4 * (args.ldq * t + dim * head), dim, x)
            if head < heads + kv_heads:
                norm = args.q_norm if head < heads else args.k_norm
                if norm:
                    _normalize(x, dim, norm, eps)
                angles = 4 * half * position
                _rotate(x, half, args.interleaved, args.cos + angles, args.sin + angles)
            if head < heads:
                _copy_head(x, padded, args.out + 4 * (args.ldo * t + padded * head))
                continue
            block = args.cache + args.block_bytes * block_of(state, t, position)
            at = position % BLOCK
            if head < heads + kv_heads:
                keys = block + args.head_bytes * (head - heads)
                step = keys + size * BLOCK * (dim + padded) + 4 * at
                write(x, dim, keys + size * at, size * BLOCK, step, layout.KEY_GROUP)
            else:
                keys = block + args.head_bytes * (head - heads - kv_heads)
                step = keys + size * BLOCK * (dim + padded) + key_steps_bytes(dim) + 4 * at
                write(x, padded, keys + size * (BLOCK * dim + padded * at), size, step, padded)
        return 0

    return store_tokens
