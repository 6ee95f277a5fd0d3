"""From a configuration and tensors to checked `Weights`: every tensor present, used, and of the right shape."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.architectures.fused import split_fused
from ternrun.loader.architectures.table import ARCHITECTURES
from ternrun.loader.architectures.tensor_names import GROUPS, is_linear, shapes
from ternrun.runtime.config import ModelConfig
from ternrun.runtime.encodings import ENCODINGS, nbytes
from ternrun.runtime.weights import Tensor, Weights

_VECTOR_TYPES = ("F32", "F16", "BF16")
# Length of a matrix row by its I2_S scale: real models lie between 0.3 and 200 (2B-4T's scales are as large as 2.5)
_ROW_LENGTHS = (1e-3, 400.0)


def assemble(config: ModelConfig, tensors: Mapping[str, Tensor]) -> Weights:
    """Checked weights; `.scale` tensors are folded into `Tensor.scale`.

    Raises LoadError naming the first tensor that is missing, not used by this architecture, or of the wrong shape,
    type or content.
    """
    row = ARCHITECTURES[config.architecture]
    if row.fused:
        tensors = split_fused(config, tensors)
    groups = _groups(config, tensors)
    expected = shapes(
        config, groups, head="output.weight" in tensors, bias="output.bias" in tensors, pre_norm=row.pre_norm
    )
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
