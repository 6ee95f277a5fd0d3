"""The forms in which Hugging Face folders keep BitNet's weights (transformers, integrations/bitnet.py).

Packed four to a byte with a weight_scale; unpacked -1, 0 and 1 with a weight_scale; or masters in floating point that
are rounded to ternary by their mean magnitude as they run. All three become HF_PACKED tensors whose scale, one float32
number, stands in `Tensor.scale`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.architectures.assemble import vector
from ternrun.loader.hf.safetensors import RawTensor
from ternrun.loader.quants.table import decode, encode_trits
from ternrun.runtime.weights import Tensor

FLOATS = ("F32", "F16", "BF16")
_BATCH = 1 << 22  # weights counted at a time


class TernaryRule:
    """What `quantization_config` says about projections.

    `masters`: without it, weights are masters to be rounded. Raises LoadError for a method other than BitNet's.
    """

    def __init__(self, quantization: Any, *, masters: bool) -> None:
        table = quantization if isinstance(quantization, dict) else {}
        method = table.get("quant_method", "bitnet")
        if method != "bitnet":
            raise LoadError(f"config.json: weights quantized with {str(method)[:40]!r} are not supported; bitnet's are")
        self.applies = bool(table) or masters
        self.divides = table.get("linear_class", "bitlinear") == "bitlinear"
        self.online = table.get("quantization_mode", "offline" if table else "online") == "online"

    def scale(self, stored: float) -> float:
        """The factor on the weights that a stored weight_scale means."""
        return 1 / stored if self.divides else stored


def ternary_tensor(name: str, tensor: RawTensor, stored: RawTensor | None, rule: TernaryRule) -> Tensor:
    """A projection in any of the three forms; `stored` is its weight_scale. Raises LoadError naming the tensor."""
    rows, cols = tensor.shape
    packed = tensor.dtype == "U8"
    if not packed and tensor.dtype not in FLOATS:
        raise LoadError(f"tensor {tensor.name[:80]!r} of dtype {tensor.dtype} is not of a form that is supported")
    if not packed and (rows % 4 or not rows * cols):
        raise LoadError(f"tensor {tensor.name[:80]!r} has {rows} rows of {cols}, which cannot be packed by four")
    if not packed and rule.online:
        codes, scale = _round(tensor, online=True)
        return Tensor(name, "HF_PACKED", tensor.shape, codes, scale)
    if stored is None:
        raise LoadError(f"tensor '{tensor.name}_scale' is missing")
    scale = rule.scale(_number(stored))
    if packed:
        return Tensor(name, "HF_PACKED", (4 * rows, cols), tensor.data, scale)
    return Tensor(name, "HF_PACKED", tensor.shape, _round(tensor, online=False)[0], scale)


def _number(tensor: RawTensor) -> float:
    """A scale: one float, kept exactly."""
    if tensor.dtype not in FLOATS or tensor.shape not in ((), (1,)):
        raise LoadError(f"tensor {tensor.name[:80]!r} is not one number but {tensor.dtype} {list(tensor.shape)}")
    value = float(vector(Tensor("", tensor.dtype, (1,), tensor.data))[0])
    if not 1e-20 < abs(value) < 1e20:
        raise LoadError(f"tensor {tensor.name[:80]!r} holds the impossible scale {value}")
    return value


def _round(tensor: RawTensor, *, online: bool) -> tuple[NDArray[np.uint8], float]:
    """Packed trits and scale of float weights: masters (`online`), or weights that must be -1, 0 and 1 already.

    Sixteen bits have few values: what becomes of each is worked out once, and looked up for all weights.
    """
    if tensor.dtype == "F32":
        words, values, counts = None, tensor.data.view("<f4"), np.ones(1, np.int64)
    else:
        words = tensor.data.view("<u2")
        values = decode(tensor.dtype, np.arange(1 << 16, dtype="<u2").view(np.uint8), (1 << 16,))
        counts = sum(
            (np.bincount(words[at : at + _BATCH], minlength=1 << 16) for at in range(0, words.size, _BATCH)),
            np.zeros(1 << 16, np.int64),
        )
        values = np.where(counts > 0, values, np.float32(0))
    if not np.isfinite(values).all():
        raise LoadError(f"tensor {tensor.name[:80]!r} holds weights that are not finite numbers")
    scale = np.float32(1)
    if online:
        total = (np.abs(values).astype(np.float64) * counts).sum()
        scale = np.float32(max(total / (tensor.shape[0] * tensor.shape[1]), 1e-5))
    trits = np.clip(np.rint(values * (1 / scale)), -1, 1).astype(np.int8)
    if not online and (trits != values).any():
        raise LoadError(f"tensor {tensor.name[:80]!r} is said to hold -1, 0 and 1 but holds other values")
    codes = (trits if words is None else trits[words]).reshape(tensor.shape)
    return encode_trits("HF_PACKED", codes, np.ones((1, 1), np.float32)), float(scale)
