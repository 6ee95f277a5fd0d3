"""One decoder in plain numpy: the arithmetic that every kernel is held against.

It covers all of `ModelConfig` and is written to be read, not to be fast: whole matrices, one token sequence, no cache
but the rounding that a cache would do. Everything is REAL, float32, unless the line says otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.loader.quants.table import decode, trits
from ternrun.runtime.config import ModelConfig, RopeConfig
from ternrun.runtime.encodings import ENCODINGS
from ternrun.runtime.weights import Tensor, Weights

F32 = NDArray[np.float32]
REAL: Any = np.float32  # a test that wants no roundings but the model's own sets float64


def forward(weights: Weights, ids: list[int] | NDArray[np.integer], *, kv: str = "f16") -> F32:
    """Logits (T, vocab) at every position of one sequence that starts at position 0."""
    tensors, config = weights.tensors, weights.config
    x = hidden(weights, ids, kv=kv)
    logits = linear(tensors.get("output.weight", tensors["token_embd.weight"]), x)
    if "output.bias" in tensors:
        logits = logits + vector(tensors["output.bias"])
    logits = logits * REAL(config.logit_scale)
    if config.logit_softcap:
        logits = REAL(config.logit_softcap) * np.tanh(logits / REAL(config.logit_softcap))
    return logits


def hidden(weights: Weights, ids: list[int] | NDArray[np.integer], *, kv: str = "f16") -> F32:
    """Final-norm hidden states (T, dim)."""
    return _Decoder(weights, kv).hidden(np.asarray(ids, np.int64))


class _Decoder:
    """One layer stack; residual streams are kept as (streams, T, dim), one stream unless mHC is on."""

    def __init__(self, weights: Weights, kv: str) -> None:
        self.config: ModelConfig = weights.config
        self.tensors = weights.tensors
        self.kv_type = {"f16": np.float16, "f32": REAL}[kv]

    def hidden(self, ids: NDArray[np.int64]) -> F32:
        config = self.config
        x = dense(self.tensors["token_embd.weight"])[ids] * REAL(config.embedding_scale)
        streams = np.repeat(x[None], config.mhc_streams, axis=0)
        for layer in range(config.n_layers):
            streams = self.residual(streams, layer, "attn")
            streams = self.residual(streams, layer, "ffn")
        return self.norm("output_norm", streams.mean(axis=0, dtype=REAL))

    def residual(self, streams: F32, layer: int, name: str) -> F32:
        """One sublayer around its residual: x + f(norm(x)), or mHC-lite's mix of streams (arXiv 2601.05732)."""
        sublayer = self.attention if name == "attn" else self.ffn
        if len(streams) == 1:
            y = sublayer(self.maybe_norm(f"blk.{layer}.{name}_norm", streams[0]), layer)
            return streams + y * REAL(self.config.residual_scale)
        n = len(streams)
        table = dense(self.tensors[f"blk.{layer}.mhc_{name}.weight"])  # (n + 2, n): mixing rows, read row, write row
        mix, read, write = table[:n], table[n], table[n + 1]
        x = np.einsum("s,std->td", read, streams)
        y = sublayer(self.norm(f"blk.{layer}.{name}_norm", x), layer)
        return np.einsum("rs,std->rtd", mix, streams) + write[:, None, None] * y

    def attention(self, x: F32, layer: int) -> F32:
        config, blk, t = self.config, f"blk.{layer}.", len(x)
        q, k = self.project(blk + "attn_q", x), self.project(blk + "attn_k", x)
        if config.wide_qk_norm:
            q, k = self.norm(blk + "attn_q_norm", q), self.norm(blk + "attn_k_norm", k)
        q = q.reshape(t, config.n_heads, config.head_dim)
        k = k.reshape(t, config.n_kv_heads, config.head_dim)
        v = self.project(blk + "attn_v", x).reshape(t, config.n_kv_heads, config.head_dim)
        sliding = bool(config.sliding_layers and config.sliding_layers[layer])
        if not config.wide_qk_norm:
            q, k = self.maybe_norm(blk + "attn_q_norm", q), self.maybe_norm(blk + "attn_k_norm", k)
        if not config.rope_layers or config.rope_layers[layer]:
            cos, sin = rope_tables(config.rope, t, sliding)
            q, k = rotate(q, cos, sin, config.rope), rotate(k, cos, sin, config.rope)
        k, v = (a.astype(self.kv_type).astype(REAL) for a in (k, v))
        share = config.n_heads // config.n_kv_heads
        k, v = np.repeat(k, share, axis=1), np.repeat(v, share, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) * REAL(config.scale)
        if cap := config.attention_softcap:
            scores = REAL(cap) * np.tanh(scores / REAL(cap))
        scores = np.where(visible(t, config.sliding_window if sliding else 0), scores, REAL(-np.inf))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", scores, v).reshape(t, -1)
        y = self.project(blk + "attn_output", self.maybe_norm(blk + "attn_sub_norm", mixed))
        return self.maybe_norm(blk + "post_attention_norm", y)

    def ffn(self, x: F32, layer: int) -> F32:
        blk = f"blk.{layer}."
        y = ACTIVATIONS[self.config.activation](self.project(blk + "ffn_gate", x)) * self.project(blk + "ffn_up", x)
        y = self.project(blk + "ffn_down", self.maybe_norm(blk + "ffn_sub_norm", y))
        return self.maybe_norm(blk + "post_ffw_norm", y)

    def project(self, name: str, x: F32) -> F32:
        """x (T, cols) -> (T, rows), with the projection's own input norm and bias where it has them."""
        y = linear(self.tensors[f"{name}.weight"], self.maybe_norm(f"{name}_norm_in", x))
        bias = self.tensors.get(f"{name}.bias")
        return y if bias is None else y + vector(bias)

    def norm(self, name: str, x: F32) -> F32:
        """RMSNorm over the last axis (arXiv 1910.07467)."""
        mean_square = np.mean(np.square(x), axis=-1, keepdims=True, dtype=np.float64)
        return (x * (1 / np.sqrt(mean_square + self.config.norm_eps)).astype(REAL)) * vector(
            self.tensors[f"{name}.weight"]
        )

    def maybe_norm(self, name: str, x: F32) -> F32:
        return self.norm(name, x) if f"{name}.weight" in self.tensors else x


def dense(tensor: Tensor) -> F32:
    """All elements as float32."""
    return decode(tensor.type, tensor.data, tensor.shape) * REAL(tensor.scale)


vector = dense


def linear(tensor: Tensor, x: F32) -> F32:
    """x (T, cols) times the transpose of a (rows, cols) matrix."""
    if ENCODINGS[tensor.type].kind == "ternary":
        return ternary_linear(tensor, x)
    return (x.astype(np.float64) @ dense(tensor).T.astype(np.float64)).astype(REAL)


def ternary_linear(tensor: Tensor, x: F32) -> F32:
    """BitNet's linear (arXiv 2402.17764): int8 activations per token by absmax, exact integer sums, float32 scales."""
    w, scales = trits(tensor.type, tensor.data, tensor.shape)  # (rows, cols) int8, (rows, blocks)
    if (scales == scales[:, :1]).all():
        scales = scales[:, :1]  # one scale a row: one integer sum over the whole row
    scales = scales * REAL(tensor.scale)
    q, inverse = quantize(x)
    rows, cols = w.shape
    blocks = scales.shape[1]
    y = np.zeros((len(x), rows), REAL)
    for b in range(blocks):
        part = slice(b * cols // blocks, (b + 1) * cols // blocks)
        sums = q[:, part].astype(np.float64) @ w[:, part].T.astype(np.float64)  # exact: far below 2**53
        y = y + sums.astype(REAL) * scales[:, b]
    return y * inverse


def quantize(x: F32) -> tuple[NDArray[np.int8], F32]:
    """Per-token int8: (T, cols) codes and the (T, 1) factor that turns them back."""
    s = REAL(127) / np.maximum(np.abs(x).max(axis=-1, keepdims=True), REAL(1e-5))
    return np.clip(np.rint(x * s), -128, 127).astype(np.int8), REAL(1) / s


def _silu(x: F32) -> F32:
    return (x / (1 + np.exp(-x.astype(np.float64)))).astype(REAL)


def _gelu(x: F32) -> F32:
    """The tanh form, as llama.cpp and gemma use it."""
    return REAL(0.5) * x * (1 + np.tanh(REAL(math.sqrt(2 / math.pi)) * (x + REAL(0.044715) * x**3)))


def _relu2(x: F32) -> F32:
    return np.square(np.maximum(x, REAL(0)))


ACTIVATIONS = {"silu": _silu, "gelu": _gelu, "relu2": _relu2}


def visible(t: int, window: int) -> NDArray[np.bool_]:
    """(T, T): may query i see key j? Causal, and at most `window` tokens back, itself included."""
    i, j = np.arange(t)[:, None], np.arange(t)[None]
    return (j <= i) & ((i - j < window) if window else True)


def rope_tables(rope: RopeConfig, t: int, sliding: bool) -> tuple[F32, F32]:
    """cos and sin (T, 1, dim / 2) of every position.

    A sliding layer with a base of its own is not scaled at all (gemma3).
    """
    if sliding and rope.local_base:
        angles, magnitude = frequencies(rope.dim, rope.local_base) / rope.local_factor, 1.0
    else:
        angles, magnitude = scaled_frequencies(rope), rope.attention_factor
    theta = np.arange(t)[:, None, None] * angles
    return (np.cos(theta) * magnitude).astype(np.float32), (np.sin(theta) * magnitude).astype(np.float32)


def frequencies(dim: int, base: float) -> NDArray[np.float64]:
    return base ** (-np.arange(0, dim, 2) / dim)


def scaled_frequencies(rope: RopeConfig) -> NDArray[np.float64]:
    """Linear interpolation, per-pair factors (llama 3) or YaRN's ramp between both (arXiv 2309.00071)."""
    plain = frequencies(rope.dim, rope.base)
    if rope.frequency_factors:
        plain = plain / np.asarray(rope.frequency_factors)
    if rope.scaling == "none":
        return plain
    squeezed = plain / rope.factor
    if rope.scaling == "linear":
        return squeezed

    def pair_that_turns(turns: float) -> float:
        """Index of the pair that makes so many full turns within the original context."""
        return rope.dim * math.log(rope.original_context / (turns * 2 * math.pi)) / (2 * math.log(rope.base))

    low = max(0.0, math.floor(pair_that_turns(rope.beta_fast)))
    high = min(rope.dim - 1.0, math.ceil(pair_that_turns(rope.beta_slow)))
    ramp = np.clip((np.arange(rope.dim // 2) - low) / max(0.001, high - low), 0, 1)
    return plain * (1 - ramp) + squeezed * ramp


def rotate(x: F32, cos: F32, sin: F32, rope: RopeConfig) -> F32:
    """Turn the first `rope.dim` elements of each head; x (T, heads, head_dim)."""
    n = rope.dim
    first, second = (slice(0, n // 2), slice(n // 2, n)) if rope.style == "neox" else (slice(0, n, 2), slice(1, n, 2))
    y = x.copy()
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., first] * sin + x[..., second] * cos
    return y
