"""Tensors that hold several projections of one input, row after row (phi3): split on reading, fused on writing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.runtime.config import ModelConfig
from ternrun.runtime.encodings import ENCODINGS, nbytes
from ternrun.runtime.weights import Tensor

FUSED = {"attn_qkv": ("attn_q", "attn_k", "attn_v"), "ffn_up": ("ffn_gate", "ffn_up")}


def split_fused(config: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with every fused one replaced by its parts, which share its bytes.

    Raises LoadError for a fused tensor of another height, or of an encoding whose rows are not apart.
    """
    q, k, f = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim, config.ffn_dim
    heights = {"attn_qkv": (q, k, k), "ffn_up": (f, f)}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        block, _, stem = name.removesuffix(".weight").rpartition(".")
        rows = heights.get(stem) if name.endswith(".weight") else None
        if rows is None or (stem == "ffn_up" and f"{block}.ffn_gate.weight" in tensors):
            found[name] = tensor
            continue
        for part, piece in zip(FUSED[stem], _pieces(tensor, rows), strict=True):
            found[f"{block}.{part}.weight"] = Tensor(f"{block}.{part}.weight", tensor.type, *piece, tensor.scale)
    return found


def _pieces(tensor: Tensor, rows: tuple[int, ...]) -> list[tuple[tuple[int, int], NDArray[np.uint8]]]:
    encoding = ENCODINGS[tensor.type]
    if len(tensor.shape) != 2 or tensor.shape[0] != sum(rows):
        raise LoadError(f"tensor {tensor.name!r} has shape {list(tensor.shape)}, its model asks for {sum(rows)} rows")
    cols = tensor.shape[1]
    stride = nbytes(tensor.type, (1, cols))
    if stride is None or encoding.flat or encoding.tensor_bytes or encoding.chunk or tensor.type == "IQ2_BN_R4":
        raise LoadError(f"tensor {tensor.name!r} of type {tensor.type} holds several projections and cannot be split")
    pieces, first = [], 0
    for height in rows:
        pieces.append(((height, cols), tensor.data[first * stride : (first + height) * stride]))
        first += height
    return pieces


def fused_name(name: str) -> str | None:
    """The name of the fused tensor that a projection's weight belongs to; None for any other tensor."""
    block, _, stem = name.removesuffix(".weight").rpartition(".")
    if not name.endswith(".weight"):
        return None
    return next((f"{block}.{whole}.weight" for whole, parts in FUSED.items() if stem in parts), None)
