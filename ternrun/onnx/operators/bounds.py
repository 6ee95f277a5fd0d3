"""Bounds for reference operators whose results or work can be much larger than their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.operators.shapes import as_int_list
from ternrun.onnx.operators.table import Array

Bound = Callable[..., tuple[list[int], int]]  # attributes, inputs -> a bound on the result: shape and bytes an element


def _attribute(name: str) -> Bound:
    """A bound from a shape attribute."""
    return lambda values, *_: ([abs(int(n)) for n in values.get(name, ())], 8)


def _input(index: int, most: int = 1) -> Bound:
    """A bound from the integers of an input."""

    def bound(values: Mapping[str, Any], *inputs: Any) -> tuple[list[int], int]:
        stated = inputs[index] if index < len(inputs) else None
        return [abs(n) for n in as_int_list(stated)] * most, 8

    return bound


def _pad(values: Mapping[str, Any], x: Array, pads: Array | None = None, value: Any = None, axes: Any = None) -> Any:
    each = as_int_list(pads) if pads is not None else list(values.get("pads") or values.get("paddings") or ())
    half = len(each) // 2
    over = as_int_list(axes) if axes is not None else list(range(half))
    if len(over) != half or len(each) != 2 * half:
        raise LoadError(f"states {len(each)} pads for {len(over)} axes")
    dims = list(x.shape)
    for a, b, e in zip(over, each[:half], each[half:], strict=True):
        dims[a] = max(0, dims[a] + b) + max(0, e)
    return dims, x.itemsize


def _resize(values: Mapping[str, Any], x: Array, *more: Any) -> Any:
    factor = 1.0
    for m in more:
        if isinstance(m, np.ndarray) and m.size and m.dtype.kind == "f":
            factor = max(factor, float(np.prod(np.maximum(np.abs(m.astype(np.float64)), 1))))
        elif isinstance(m, np.ndarray) and m.size:
            factor = max(factor, float(prod(max(1, n) for n in as_int_list(m))))
    for s in values.get("scales") or ():
        factor *= max(float(s), 1.0)
    if not factor < 1 << 48:
        raise LoadError("scales its input up too far")
    return [x.size, int(factor)], x.itemsize


def _unpool(values: Mapping[str, Any], x: Array, indices: Array, shape: Array | None = None) -> Any:
    if shape is not None:
        return as_int_list(shape), x.itemsize
    return [x.size, *(abs(int(s)) for s in values.get("strides") or ()), 4], x.itemsize


def _transposed(values: Mapping[str, Any], x: Array, w: Array, *more: Any) -> Any:
    dims = values.get("output_shape") or [
        n * s + k * d
        for n, s, k, d in zip(
            x.shape[2:], values.get("strides") or [1] * x.ndim, w.shape[2:], values.get("dilations") or [1] * x.ndim,
            strict=False,
        )
    ]  # fmt: skip
    return [x.shape[0], w.shape[1], *map(abs, dims), prod(w.shape[2:])], x.itemsize


def _padded(values: Mapping[str, Any], x: Array, *more: Any) -> Any:
    pads = sum(abs(int(p)) for p in values.get("pads") or ())
    return [x.size, (1 + pads) ** max(x.ndim - 2, 1), *(abs(int(k)) for k in values.get("kernel_shape") or ())], 8


def _einsum(values: Mapping[str, Any], *inputs: Array) -> Any:
    """The product of the dimensions of all letters: the number of terms of the sums."""
    sizes: dict[str, int] = {}
    terms = str(values.get("equation", "")).replace(" ", "").split("->")[0].split(",")
    for term, x in zip(terms, inputs, strict=False):
        letters = term.replace("...", "")
        for i, n in enumerate(x.shape):
            label = letters[i] if "." not in term and i < len(letters) else f"{term}{i}"
            sizes[label] = max(sizes.get(label, 0), n)
    return list(sizes.values()), 8


def _trees(values: Mapping[str, Any], x: Array) -> Any:
    """Check that trees end: the reference would follow a cycle forever."""
    count = len(values.get("nodes_truenodeids") or ())
    trees, ids = values.get("nodes_treeids") or [0] * count, values.get("nodes_nodeids") or range(count)
    place = {key: i for i, key in enumerate(zip(trees, ids, strict=False))}
    state = [0] * count  # 1: on the current path, 2: done
    ways: list[list[int | None]] = []
    for way, leaf in (("nodes_truenodeids", "nodes_trueleafs"), ("nodes_falsenodeids", "nodes_falseleafs")):
        ends = values.get(leaf) or [m == "LEAF" for m in values.get("nodes_modes") or ()] or [0] * count
        ways.append(
            [None if e else place.get((t, n)) for n, t, e in zip(values.get(way) or (), trees, ends, strict=False)]
        )
    for root in range(count):
        stack = [root]
        while stack:
            at = stack[-1]
            if state[at]:
                state[stack.pop()] = 2
                continue
            state[at] = 1
            for child in [c for w in ways if at < len(w) and (c := w[at]) is not None]:
                if state[child] == 1:
                    raise LoadError("has a tree with a cycle")
                if not state[child]:
                    stack.append(child)
    return [x.size], 8


def _blocks(values: Mapping[str, Any], x: Array, scale: Array, *more: Any) -> Any:
    return [scale.size, max(1, abs(int(values.get("block_size", 0))))], 8


BOUNDS: dict[str, Bound] = {
    "QuantizeLinear": _blocks, "DequantizeLinear": _blocks,
    "MaxPool": _padded, "ConvInteger": _padded, "QLinearConv": _padded, "Einsum": _einsum, "TreeEnsemble": _trees,
    "TreeEnsembleRegressor": _trees, "TreeEnsembleClassifier": _trees,
    "Pad": _pad, "Resize": _resize, "Upsample": _resize, "MaxUnpool": _unpool, "ConvTranspose": _transposed,
    "RandomNormal": _attribute("shape"), "RandomUniform": _attribute("shape"),
    "HannWindow": _input(0), "HammingWindow": _input(0), "BlackmanWindow": _input(0), "AffineGrid": _input(1, 2),
    "CenterCropPad": _input(1), "Col2Im": _input(1), "DFT": _input(1),
    "Multinomial": lambda values, x: ([x.shape[0], abs(int(values.get("sample_size", 1)))], 8),
    "MelWeightMatrix": lambda values, bins, length, *_: ([abs(n) for n in as_int_list(bins) + as_int_list(length)], 8),
    "OneHot": lambda values, i, depth, *_: ([i.size, *(abs(n) for n in as_int_list(depth))], 8),
    "GridSample": lambda values, x, grid: ([*x.shape[:2], grid.size], x.itemsize),
    "RoiAlign": lambda values, x, rois, *_: (
        [rois.shape[0], x.shape[1], *(abs(int(values.get(f"output_{d}", 1))) for d in ("height", "width")),
         max(1, int(values.get("sampling_ratio", 0))) ** 2], x.itemsize),
    "MaxRoiPool": lambda values, x, rois: ([rois.shape[0], x.shape[1], *map(abs, values.get("pooled_shape", ()))], 4),
    "STFT": lambda values, x, step, window=None, length=None: ([x.size, *(abs(n) for n in as_int_list(length))], 8),
}  # fmt: skip
