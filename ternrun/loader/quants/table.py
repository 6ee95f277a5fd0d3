"""Every weight encoding in plain numpy, both ways: the reference that kernels and converters are tested against.

`decode` and `encode` speak float32; `trits` and `encode_trits` speak ternary weights and their scales, exactly.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError, UsageError
from ternrun.loader.quants.ordinary import DECODERS, ENCODERS, away_from_zero, reciprocal
from ternrun.loader.quants.ternary import HALF_SCALES, PACK_TENSOR, UNPACK_TENSOR, group_size
from ternrun.runtime.encodings import ENCODINGS, nbytes

U8 = NDArray[np.uint8]
I8 = NDArray[np.int8]
F32 = NDArray[np.float32]
Shape = tuple[int, ...]

_F16_OVERFLOW = 65520.0  # the smallest number that rounds to an infinite half
_TOO_LARGE = {
    "F32": np.inf, "F16": _F16_OVERFLOW, "BF16": (2 - 2**-8) * 2.0**127, "Q8_0": 127 * _F16_OVERFLOW,
    "Q4_0": 8 * _F16_OVERFLOW, "Q4_1": _F16_OVERFLOW, "Q5_0": 16 * _F16_OVERFLOW, "Q5_1": _F16_OVERFLOW,
}  # fmt: skip


def decode(type_name: str, data: U8, shape: Shape, *, name: str = "tensor") -> F32:
    """Weights of `shape` from the bytes of any encoding. Raises LoadError if the bytes are too few or too many."""
    _check_size(type_name, data, shape, name)
    with np.errstate(all="ignore"):  # hostile scales may be infinite or no numbers
        if type_name in DECODERS:
            return DECODERS[type_name](data.reshape(-1, ENCODINGS[type_name].block_bytes)).reshape(shape)
        codes, scales = UNPACK_TENSOR[type_name](type_name, data, prod(shape[:-1]), shape[-1])
        groups = codes.reshape(len(scales), scales.shape[1], -1)
        return (scales[:, :, None] * groups.astype(np.float32)).reshape(shape)


def trits(type_name: str, data: U8, shape: Shape, *, name: str = "tensor") -> tuple[I8, F32]:
    """Weights (rows, cols) in {-1, 0, 1} and scales (rows, cols / group), each as the file has it.

    Raises LoadError where the type or the values are not ternary, or a scale is not finite.
    """
    if type_name not in UNPACK_TENSOR:
        raise LoadError(f"{name} is of type {type_name}, which is not ternary")
    _check_size(type_name, data, shape, name)
    codes, scales = UNPACK_TENSOR[type_name](type_name, data, prod(shape[:-1]), shape[-1])
    if codes.size and codes.max() > 1:
        raise LoadError(f"{name} of type {type_name} is not ternary: it holds the code 3")
    if not np.isfinite(scales).all():
        raise LoadError(f"{name} of type {type_name} has a scale that is not finite")
    return codes, scales


def encode(type_name: str, weights: F32) -> U8:
    """Bytes of weights (..., cols) in a type of ENCODERS or a ternary one, there rounded in units of a group's absmax.

    Raises UsageError if the shape does not divide into blocks or the values do not fit the type.
    """
    weights = np.ascontiguousarray(weights, np.float32)
    if not np.isfinite(weights).all():
        raise UsageError(f"weights that are not finite cannot be written as {type_name}")
    _check_shape(type_name, weights.shape)
    if type_name in ENCODERS:
        if (np.abs(weights) >= _TOO_LARGE[type_name]).any():
            raise UsageError(f"weights of {_TOO_LARGE[type_name]:g} and more do not fit {type_name}")
        return ENCODERS[type_name](weights.reshape(-1, ENCODINGS[type_name].block)).ravel()
    if type_name not in PACK_TENSOR or type_name == "HF_PACKED":  # which would lose the scale
        raise UsageError(f"weights cannot be written as {type_name}")
    rows = weights.reshape(-1, weights.shape[-1])
    groups = rows.reshape(len(rows), -1, group_size(type_name, rows.shape[1]))
    scales = np.abs(groups).max(axis=2)
    if type_name == "I2_S":
        scales = np.full_like(scales, scales.max())
    codes = away_from_zero(groups * reciprocal(scales)[:, :, None]).astype(np.int8)
    return encode_trits(type_name, codes.reshape(rows.shape), scales)


def encode_trits(type_name: str, trits: I8, scales: F32) -> U8:
    """Bytes of ternary weights (rows, cols) with scales (rows, groups); the groups may be wider than the type's.

    HF_PACKED holds no scale: there `scales` is left out of the bytes.
    Raises UsageError where the type cannot hold them: finer scales, scales too large for fp16, zeros in Q1_0.
    """
    _check_shape(type_name, trits.shape)
    if type_name not in PACK_TENSOR:
        raise UsageError(f"ternary weights cannot be written as {type_name}")
    if type_name == "Q1_0" and not trits.all():
        raise UsageError("Q1_0 cannot hold zeros; write TQ2_0 or TQ1_0")
    if not np.isfinite(scales).all():
        raise UsageError("a scale is not finite")
    fitted = _fit_scales(type_name, trits, np.asarray(scales, np.float32))
    return PACK_TENSOR[type_name](type_name, np.ascontiguousarray(trits, np.int8), fitted).ravel()


def _fit_scales(type_name: str, trits: I8, scales: F32) -> F32:
    """Scales (rows, groups of the type) from (rows or 1, groups that may be wider)."""
    rows, cols = trits.shape
    given, wanted = scales.shape[-1], cols // group_size(type_name, cols)
    scales = np.broadcast_to(scales, (rows, given))
    finest = np.repeat(scales, max(wanted // given, 1), axis=1)
    fitted = finest[:, :: max(given // wanted, 1)]
    if fitted.shape[1] != wanted or (np.repeat(fitted, finest.shape[1] // wanted, axis=1) != finest).any():
        raise UsageError(f"{given} scales a row do not fit {type_name}, which holds {wanted}")
    if type_name == "I2_S" and (fitted != fitted[0, 0]).any():
        raise UsageError("I2_S holds one scale a tensor, but the scales differ")
    if type_name in HALF_SCALES and (np.abs(fitted) >= _F16_OVERFLOW).any():
        raise UsageError(f"scales of {_F16_OVERFLOW:g} and more do not fit {type_name}")
    return fitted


def _check_shape(type_name: str, shape: Shape) -> None:
    if type_name not in ENCODINGS:
        raise UsageError(f"unknown type {type_name!r}; known are {', '.join(ENCODINGS)}")
    if nbytes(type_name, shape) is None:
        raise UsageError(f"weights of shape {list(shape)} do not divide into blocks of {type_name}")


def _check_size(type_name: str, data: U8, shape: Shape, name: str) -> None:
    size = nbytes(type_name, shape)
    if data.size != size:
        raise LoadError(f"{name} of shape {list(shape)} and type {type_name} takes {size} bytes, but has {data.size}")
