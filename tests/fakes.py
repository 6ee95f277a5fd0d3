"""Small seeded models and a byte vocabulary: all that tests need in place of a download.

The same seed gives the same trits and scales whatever the encoding, and fp16 holds the scales exactly, so one model
written in every ternary encoding must give the same logits bit for bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.bench.vocabulary import byte_vocabulary
from ternrun.loader.architectures.tensor_names import is_linear, shapes
from ternrun.loader.architectures.write_config import write_config
from ternrun.loader.gguf.write import write_gguf
from ternrun.loader.quants.table import encode, encode_trits
from ternrun.runtime.config import ModelConfig, RopeConfig
from ternrun.runtime.encodings import ENCODINGS
from ternrun.runtime.weights import Tensor, Weights

SHAPE: dict[str, int] = {
    "vocab_size": 320, "context_length": 512, "dim": 256, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 64,
    "ffn_dim": 512,
}  # fmt: skip

# What each architecture adds to the plain decoder: optional tensors, and fields of ModelConfig.
EXTRAS: dict[str, tuple[str, ...]] = {
    "llama": (),
    "qwen2": ("qkv_bias",),
    "qwen3": ("qk_norm",),
    "gemma3": ("qk_norm", "post_norm"),
    "gemma2": ("post_norm",),
    "phi3": (),
    "granite": (),
    "smollm3": (),
    "olmo2": ("post_norm", "wide_qk_norm"),
    "bitnet": ("sub_norm",),
    "bitnet-25": ("sub_norm",),
    "bitnet-b1.58": ("sub_norm",),
    "nanochat-ternary": ("mhc",),
    "ternrun": ("qk_norm", "sub_norm", "mhc"),
}
FIELDS: dict[str, dict[str, Any]] = {
    "gemma3": {"activation": "gelu", "sliding_window": 8},
    "gemma2": {"activation": "gelu", "sliding_window": 8, "attention_softcap": 50.0, "logit_softcap": 30.0},
    "granite": {"embedding_scale": 12.0, "attention_scale": 0.125, "residual_scale": 0.25, "logit_scale": 0.125},
    "olmo2": {"wide_qk_norm": True},
    "bitnet-25": {"activation": "relu2"},
    "bitnet-b1.58": {"activation": "relu2"},
    "nanochat-ternary": {"mhc_streams": 2, "norm_eps": float(np.float32(1e-6))},
    "ternrun": {"mhc_streams": 4, "activation": "relu2"},
}


def fake_config(arch: str = "llama", **overrides: Any) -> ModelConfig:
    """A small ModelConfig of that architecture; any field may be overridden (`rope` as a dict of RopeConfig fields)."""
    fields: dict[str, Any] = (
        {"architecture": arch, "norm_eps": float(np.float32(1e-5))} | SHAPE | FIELDS.get(arch, {}) | overrides
    )
    rope = {
        "dim": fields["head_dim"],
        "style": "norm" if arch in ("llama", "granite", "smollm3") else "neox",
        "local_base": 10000.0 if arch == "gemma3" else 0.0,
        "base": 1e6 if arch == "gemma3" else 1e4,
    }
    fields["rope"] = RopeConfig(**(rope | fields.get("rope", {})))
    if arch in ("gemma2", "gemma3"):
        fields.setdefault("embedding_scale", fields["dim"] ** 0.5)
    if arch == "smollm3":
        fields.setdefault("rope_layers", tuple(layer % 4 != 3 for layer in range(fields["n_layers"])))
        if all(fields["rope_layers"]):
            fields["rope_layers"] = ()
    if fields.get("sliding_window") and "sliding_layers" not in fields:
        fields["sliding_layers"] = tuple(layer % 2 == 0 for layer in range(fields["n_layers"]))
    return ModelConfig(**fields)


def fake_weights(
    arch: str = "llama",
    encoding: str = "TQ2_0",
    *,
    head: str = "F16",
    tied: bool = True,
    seed: int = 0,
    extras: tuple[str, ...] = (),
    **overrides: Any,
) -> Weights:
    """A whole model: linears in `encoding`, embedding and head in `head`, the rest F32.

    `extras` adds optional tensors beside the architecture's own: qkv_bias, qk_norm, sub_norm, post_norm, norm_in
    (an RMSNorm before each projection), scale (a `Tensor.scale` per linear); `overrides` are ModelConfig fields.
    """
    config = fake_config(arch, **overrides)
    groups = dict.fromkeys(
        g for g in (*EXTRAS[arch], *extras) if g != "scale" and (g != "mhc" or config.mhc_streams > 1)
    )
    rng = np.random.default_rng(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in shapes(config, groups, head=not tied, pre_norm=arch != "olmo2").items():
        kind = encoding if is_linear(name) else head if name in ("token_embd.weight", "output.weight") else "F32"
        data, scale = _fill(name, kind, shape, rng)
        if "scale" in extras and is_linear(name):
            scale *= float(np.float32(rng.uniform(0.5, 2)))
        tensors[name] = Tensor(name, kind, shape, data, scale)
    return Weights(config, tensors)


def _fill(name: str, kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[NDArray[np.uint8], float]:
    """Bytes, and the scale that stands beside them where the encoding has no room for one."""
    if ENCODINGS[kind].kind == "ternary":
        w, scales = fake_trits(shape, rng)
        if kind == "Q1_0":
            w = np.where(w == 0, 1, w).astype(np.int8)
        return encode_trits(kind, w, scales), float(scales[0, 0]) if kind == "HF_PACKED" else 1.0
    if ".mhc_" in name:
        values = _mhc_table(shape[1], rng)
    elif len(shape) == 2:
        values = rng.standard_normal(shape, np.float32) / np.sqrt(shape[1])
    elif "norm" in name:
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.standard_normal(shape, np.float32) * 0.1
    return encode(kind, np.asarray(values, np.float32)), 1.0


def fake_trits(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Random trits (rows, cols) and one scale for the whole matrix, as (rows, 1), that fp16 holds exactly."""
    w = rng.integers(-1, 2, shape, np.int8)
    return w, np.full((shape[0], 1), np.float16(1.2 / np.sqrt(shape[1])), np.float32)


def _mhc_table(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(n + 2, n): a doubly stochastic mix near the identity, then what is read of and written to each stream."""
    mix = 0.7 * np.eye(n) + 0.2 * np.eye(n)[rng.permutation(n)] + 0.1 * np.eye(n)[rng.permutation(n)]
    return np.concatenate([mix, rng.uniform(0.2, 0.8, (1, n)), rng.uniform(0.5, 1.5, (1, n))]).astype(np.float32)


def fake_gguf(path: Path, weights: Weights, **metadata: Any) -> Path:
    """Write those weights with a byte vocabulary; keyword arguments add or replace metadata keys (`__` for `.`)."""
    keys = write_config(weights.config) | byte_vocabulary(weights.config.vocab_size)
    keys |= {key.replace("__", "."): value for key, value in metadata.items()}
    tensors = list(weights.tensors.values())
    for tensor in weights.tensors.values():
        if tensor.scale != 1.0:
            name = tensor.name.replace(".weight", ".scale")
            tensors.append(Tensor(name, "F32", (1,), encode("F32", np.array([tensor.scale], np.float32))))
    if factors := weights.config.rope.frequency_factors:
        data = encode("F32", np.array(factors, np.float32))
        tensors.append(Tensor("rope_freqs.weight", "F32", (len(factors),), data))
    write_gguf(path, keys, tensors)
    return path
