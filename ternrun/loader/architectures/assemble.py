"""From a configuration and a table of tensors to checked `Weights`: every tensor present, used, and of the right shape.

Shapes are words over: D dim, Q all query heads, K all key heads, H one head, F feed-forward, V vocabulary, S residual
streams, T = S + 2. "QD" is (Q, D): Q rows of D columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.architectures.table import ARCHITECTURES
from ternrun.runtime.config import ModelConfig
from ternrun.runtime.encodings import ENCODINGS, nbytes
from ternrun.runtime.weights import Tensor, Weights

LINEARS = {
    "attn_q": "QD", "attn_k": "KD", "attn_v": "KD", "attn_output": "DQ",
    "ffn_gate": "FD", "ffn_up": "FD", "ffn_down": "DF",
}  # fmt: skip
_MODEL = {"token_embd.weight": "VD", "output_norm.weight": "D"}
_HEAD = {"output.weight": "VD"}  # absent: the embedding serves as head
_HEAD_BIAS = {"output.bias": "V"}
_LAYER = {"attn_norm.weight": "D", "ffn_norm.weight": "D"} | {f"{name}.weight": w for name, w in LINEARS.items()}

# Tensors of a layer that come together or not at all, and then in every layer.
GROUPS: dict[str, dict[str, str]] = {
    "qkv_bias": {"attn_q.bias": "Q", "attn_k.bias": "K", "attn_v.bias": "K"},
    "output_bias": {"attn_output.bias": "D"},
    "ffn_bias": {"ffn_gate.bias": "F", "ffn_up.bias": "F", "ffn_down.bias": "D"},
    "qk_norm": {"attn_q_norm.weight": "H", "attn_k_norm.weight": "H"},
    "sub_norm": {"attn_sub_norm.weight": "Q", "ffn_sub_norm.weight": "F"},
    "post_norm": {"post_attention_norm.weight": "D", "post_ffw_norm.weight": "D"},
    # an RMSNorm on the input of each projection (Microsoft's BitNet embedding models)
    "norm_in": {f"{name}_norm_in.weight": word[1] for name, word in LINEARS.items()},
    # per sublayer: S rows that mix the streams, one row that reads them, one that writes to them (docs/formats.md)
    "mhc": {"mhc_attn.weight": "TS", "mhc_ffn.weight": "TS"},
}
_VECTOR_TYPES = ("F32", "F16", "BF16")
# Length of a matrix row by its I2_S scale: real models lie between 0.3 and 200 (2B-4T's scales are as large as 2.5)
_ROW_LENGTHS = (1e-3, 400.0)


def shapes(config: ModelConfig, groups: Iterable[str], *, head: bool, bias: bool = False) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a model with these optional groups, and of its own head and that head's bias."""
    layer = dict(_LAYER)
    for group in groups:
        layer |= GROUPS[group]
    words = _MODEL | (_HEAD if head else {}) | (_HEAD_BIAS if bias else {})
    for n in range(config.n_layers):
        words |= {f"blk.{n}.{name}": word for name, word in layer.items()}
    sizes = _sizes(config)
    return {name: tuple(sizes[letter] for letter in word) for name, word in words.items()}


def is_linear(name: str) -> bool:
    """Whether a tensor is the weight of one of the seven projections of a layer."""
    return name.endswith(".weight") and name.removesuffix(".weight").rpartition(".")[2] in LINEARS


def assemble(config: ModelConfig, tensors: Mapping[str, Tensor]) -> Weights:
    """Checked weights; `.scale` tensors are folded into `Tensor.scale`.

    Raises LoadError naming the first tensor that is missing, not used by this architecture, or of the wrong shape,
    type or content.
    """
    groups = _groups(config, tensors)
    expected = shapes(config, groups, head="output.weight" in tensors, bias="output.bias" in tensors)
    scales = {name.removesuffix("weight") + "scale": name for name in expected if is_linear(name)}
    for name in tensors:
        if name not in expected and name not in scales:
            raise LoadError(f"tensor {name[:80]!r} is not part of a {config.architecture} model as ternrun knows it")
    checked = {}
    for name, shape in expected.items():
        if name not in tensors:
            raise LoadError(f"tensor {name!r} is missing")
        checked[name] = _check(tensors[name], shape)
    for scale, name in scales.items():
        if scale in tensors:
            checked[name] = _scaled(checked[name], tensors[scale])
        _plausible(checked[name])
    for name, tensor in checked.items():
        if ".mhc_" in name:
            _check_mixing(tensor)
    return Weights(config, checked)


def vector(tensor: Tensor) -> NDArray[np.float32]:
    """The elements of a small F32, F16 or BF16 tensor."""
    if tensor.type == "BF16":
        return (tensor.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return tensor.data.view(np.dtype("<f4" if tensor.type == "F32" else "<f2")).astype(np.float32)


def _groups(config: ModelConfig, tensors: Mapping[str, Tensor]) -> list[str]:
    """The groups this model has: those its architecture calls for, and those of which it holds any tensor."""
    architecture = ARCHITECTURES[config.architecture]
    found = [*architecture.required]
    for group in architecture.optional:
        names = [f"blk.{n}.{name}" for n in range(config.n_layers) for name in GROUPS[group]]
        if config.mhc_streams > 1 if group == "mhc" else any(name in tensors for name in names):
            found.append(group)
    return found


def _sizes(c: ModelConfig) -> dict[str, int]:
    return {
        "D": c.dim, "Q": c.n_heads * c.head_dim, "K": c.n_kv_heads * c.head_dim, "H": c.head_dim, "F": c.ffn_dim,
        "V": c.vocab_size, "S": c.mhc_streams, "T": c.mhc_streams + 2,
    }  # fmt: skip


def _check(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tensor.shape != shape:
        raise LoadError(f"tensor {tensor.name!r} has shape {list(tensor.shape)}, its model asks for {list(shape)}")
    small = len(shape) == 1 or ".mhc_" in tensor.name
    if tensor.type not in (_VECTOR_TYPES if small else ENCODINGS):
        raise LoadError(f"tensor {tensor.name!r} is of type {tensor.type}, which is not supported there")
    if nbytes(tensor.type, shape) != tensor.data.size:
        raise LoadError(f"tensor {tensor.name!r} has {tensor.data.size} bytes, its type and shape ask for others")
    if small and not np.isfinite(vector(tensor)).all():
        raise LoadError(f"tensor {tensor.name!r} holds values that are not finite numbers")
    if not math.isfinite(tensor.scale):
        raise LoadError(f"tensor {tensor.name!r} has a scale that is not a finite number")
    return tensor


def _scaled(tensor: Tensor, scale: Tensor) -> Tensor:
    _check(scale, (1,))
    return Tensor(tensor.name, tensor.type, tensor.shape, tensor.data, tensor.scale * float(vector(scale)[0]))


def _plausible(tensor: Tensor) -> None:
    """Converters have stored I2_S scales both as mean|w| and as its inverse: refuse what cannot be a weight."""
    if tensor.type != "I2_S":
        return
    scale = float(tensor.data[-32:-28].view("<f4")[0]) * tensor.scale
    length = scale * math.sqrt(2 / 3 * tensor.shape[1])
    if not _ROW_LENGTHS[0] <= length <= _ROW_LENGTHS[1]:
        raise LoadError(
            f"tensor {tensor.name!r} has the scale {scale:g}, which gives rows of length {length:.3g}: the file's "
            "converter probably stored 1 / scale; convert the original model again"
        )


def _check_mixing(tensor: Tensor) -> None:
    """The first S rows must be doubly stochastic: that is what keeps the streams from growing (arXiv 2601.05732)."""
    streams = tensor.shape[1]
    mix = vector(tensor).astype(np.float64).reshape(tensor.shape)[:streams]
    if (mix < -1e-3).any() or any(np.abs(mix.sum(axis) - 1).max() > 1e-2 for axis in (0, 1)):
        raise LoadError(f"tensor {tensor.name!r} does not mix its streams with weights that sum to 1")
