"""The configuration of a decoder that was read from a graph: sizes, scales, rotary embedding, architecture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ternrun.loader.architectures.table import ARCHITECTURES, OWN
from ternrun.loader.architectures.tensor_names import GROUPS
from ternrun.onnx.recognition.decoder import Decoder, Layer
from ternrun.onnx.recognition.rotation import Head
from ternrun.onnx.recognition.trace import UnrecognizedError
from ternrun.runtime.config import ModelConfig, RopeConfig


def decoder_config(decoder: Decoder, context: int) -> ModelConfig:
    """The configuration for texts of `context` tokens. Raises UnrecognizedError for layers that differ."""
    if not decoder.layers:
        raise UnrecognizedError("the graph has no layers")
    first = decoder.layers[0]
    same = ("heads", "shared", "width", "activation")
    for n, layer in enumerate(decoder.layers):
        if any(getattr(layer, k) != getattr(first, k) for k in same) or layer.vectors.keys() != first.vectors.keys():
            raise UnrecognizedError(f"layer {n} is of another shape than layer 0")
        if not math.isclose(_scale(layer), _scale(first), rel_tol=1e-3):
            raise UnrecognizedError(f"layer {n} scales its attention differently than layer 0")
    eps = sorted(decoder.eps)
    if not math.isclose(eps[0], eps[-1], rel_tol=1e-3):
        raise UnrecognizedError(f"its norms have different eps, from {eps[0]:g} to {eps[-1]:g}")
    scale = _scale(first)
    vocab, dim = decoder.embedding.shape
    window = max(layer.window for layer in decoder.layers)
    if any(layer.window not in (0, window) for layer in decoder.layers):
        raise UnrecognizedError("its layers have sliding windows of different sizes")
    usual = math.isclose(scale, first.width**-0.5, rel_tol=1e-3)
    fields: dict[str, Any] = {
        "vocab_size": vocab, "context_length": context, "dim": dim, "n_layers": len(decoder.layers),
        "n_heads": first.heads, "n_kv_heads": first.shared, "head_dim": first.width,
        "ffn_dim": first.matrices["ffn_up"].rows, "norm_eps": float(f"{eps[0]:.5g}"), "activation": first.activation,
        "embedding_scale": decoder.embedding_scale, "attention_scale": 0.0 if usual else scale,
        "sliding_window": window, "sliding_layers": tuple(bool(x.window) for x in decoder.layers) if window else (),
        "logit_softcap": decoder.softcap, "rope": _rope(decoder.layers),
    }  # fmt: skip
    return ModelConfig(architecture=_architecture(first, fields["rope"]), **fields)


def _scale(layer: Layer) -> float:
    return layer.scale * layer.query.scale * layer.key.scale


def _architecture(layer: Layer, rope: RopeConfig) -> str:
    """The simplest architecture with these parts, so that `convert` writes a file that other programs read."""
    groups = set()
    for group, names in GROUPS.items():
        if group == "wide_qk_norm":  # the same names as those of "qk_norm", which a graph is read as
            continue
        parts = {name.split(".")[0]: name.rpartition(".")[2] for name in names}
        if all((p in layer.vectors) if kind == "weight" else _biased(layer, p) for p, kind in parts.items()):
            groups.add(group)
    for row in ARCHITECTURES.values():
        fits = set(row.required) <= groups <= {*row.required, *row.optional} and not row.implicit
        if fits and row.activation == layer.activation and rope.style in ("neox", row.rope_style):
            return row.name
    return OWN


def _biased(layer: Layer, name: str) -> bool:
    return name in layer.matrices and layer.matrices[name].bias is not None


def _rope(layers: list[Layer]) -> RopeConfig:
    """One rotation for all layers, or a second one for the sliding layers."""
    for n, layer in enumerate(layers):
        query, key = layer.query, layer.key
        alike = (query.dim, query.style) == (key.dim, key.style) and np.allclose(query.angles, key.angles, rtol=1e-3)
        if not alike:
            raise UnrecognizedError(f"layer {n} rotates queries and keys differently")
    wide = next((x for x in layers if not x.window), layers[0])
    local = next((x for x in layers if x.window), None)
    for n, layer in enumerate(layers):
        meant = wide if not layer.window or local is None else local
        if layer.query.dim != meant.query.dim or not np.allclose(layer.query.angles, meant.query.angles, rtol=1e-3):
            raise UnrecognizedError(f"layer {n} rotates by other angles than the others")
    head = wide.query
    if not head.dim:
        raise UnrecognizedError("it has no rotary embedding; the engine has no other way to know positions")
    base, factors = _base(head)
    local_base = 0.0
    if local is not None and not np.allclose(local.query.angles, head.angles, rtol=1e-3):
        local_base, odd = _base(local.query)
        if odd:
            raise UnrecognizedError("its sliding layers scale their rotary embedding")
    magnitude = math.sqrt(head.magnitude * wide.key.magnitude)
    return RopeConfig(
        dim=head.dim, base=base, local_base=local_base, style=head.style, frequency_factors=factors,
        attention_factor=1.0 if math.isclose(magnitude, 1, rel_tol=2e-3) else magnitude,
    )  # fmt: skip


def _base(head: Head) -> tuple[float, tuple[float, ...]]:
    """The base of the angles, and a divisor for each angle if they are not exact powers of it."""
    angles = head.angles
    order = np.arange(len(angles)) / len(angles)
    if len(angles) == 1:
        return 10000.0, () if math.isclose(angles[0], 1, rel_tol=1e-3) else (float(1 / angles[0]),)
    guess = float(np.exp(-np.median(np.log(angles[1:]) / order[1:])))
    for digits in (1, 2, 3, 4):
        base = float(f"{max(guess, 1.01):.{digits - 1}e}")
        if np.allclose(angles, base**-order, rtol=2e-3):
            return base, ()
    if np.allclose(angles, guess**-order, rtol=2e-3):
        return guess, ()
    start = float(np.clip(np.exp(-np.log(angles[1]) / order[1]), 2.0, 1e9))  # long waves are what scalings change
    base = next((b for d in range(3) if abs((b := float(f"{start:.{d}e}")) / start - 1) < 1e-3), start)
    return base, tuple((base**-order / angles).tolist())
