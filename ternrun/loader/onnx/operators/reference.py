"""The long tail: operators as the onnx package's reference implements them, bounded where results outgrow inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.loader.onnx.graph import Graph, Node, Reference
from ternrun.loader.onnx.limits import room, work
from ternrun.loader.onnx.operators.shapes import numbers
from ternrun.loader.onnx.operators.table import Array, Kernel

MODULES = {
    "": "onnx.reference.ops",
    "ai.onnx.ml": "onnx.reference.ops.aionnxml",
    "ai.onnx.preview": "onnx.reference.ops.aionnx_preview",
    "ai.onnx.preview.training": "onnx.reference.ops.aionnx_preview_training",
}
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


def reference_kernel(node: Node, opsets: Mapping[str, int], values: Mapping[str, Any]) -> Kernel | None:
    """The package's kernel for a node, None where it has none; `values` are the attributes once resolved.

    Raises LoadError for attributes that it would refuse, or that lead out of the file.
    """
    from importlib import import_module

    from onnx.reference.op_run import RuntimeContextError, RuntimeImplementationError

    if node.domain not in MODULES:
        return None
    version = opsets[node.domain]
    try:
        try:
            cls = import_module(MODULES[node.domain]).load_op(node.domain, node.op, version, **_nothing(node.domain))
        except ImportError:  # an older package
            return None
        if not isinstance(cls, type):  # a function of the specification: expanded by us
            return None
        run_params = {"log": lambda *_: None, "opsets": dict(opsets), "verbose": 0, "new_ops": {},
                      "existing_functions": {}, "evaluator_cls": None}  # fmt: skip
        run = cls(_proto(node, values), run_params).run
    except (RuntimeContextError, RuntimeImplementationError):
        return None
    except NotImplementedError:
        return None
    except AssertionError:  # the function of an operator that has nothing else
        return None
    bound = BOUNDS.get(node.op) if node.domain == "" else None
    if bound is None:
        return run  # type: ignore[no-any-return]

    def kernel(*inputs: Any) -> Any:
        shape, itemsize = bound(values, *inputs)
        room(shape, itemsize)
        work(prod(shape))
        return run(*inputs)

    return kernel


def _nothing(domain: str) -> dict[str, Any]:
    return {"evaluator_cls": None} if domain == "" else {}


def _proto(node: Node, values: Mapping[str, Any]) -> Any:
    """The node for the package: attributes of a function's caller put in, none that would open a file."""
    from onnx import NodeProto, TensorProto, helper

    proto = NodeProto.FromString(bytes(node.proto)) if node.proto else NodeProto(op_type=node.op, domain=node.domain)
    kept = [a for a in proto.attribute if not a.ref_attr_name and a.name in values]
    for attribute in kept:
        tensors = [attribute.t, *attribute.tensors]
        if any(t.data_location == TensorProto.EXTERNAL for t in tensors):
            raise LoadError("keeps the tensor of an attribute in a file of its own, which is not supported")
    stated = {a.name for a in kept}
    added = []
    for name, value in values.items():
        if name not in stated:
            if isinstance(value, (Graph, Reference)):
                raise LoadError(f"attribute {name[:40]!r} is not supported here")
            added.append(helper.make_attribute(name, _plain(value)))
    del proto.attribute[:]
    proto.attribute.extend([*kept, *added])
    return proto


def _plain(value: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(value.array()) if hasattr(value, "array") else value


Bound = Callable[..., tuple[list[int], int]]  # attributes, inputs -> a shape and bytes that the result stays below


def _attribute(name: str) -> Bound:
    return lambda values, *_: ([abs(int(n)) for n in values.get(name, ())], 8)


def _input(index: int, most: int = 1) -> Bound:
    """As many elements as an integer input says."""

    def bound(values: Mapping[str, Any], *inputs: Any) -> tuple[list[int], int]:
        stated = inputs[index] if index < len(inputs) else None
        return [abs(n) for n in numbers(stated)] * most, 8

    return bound


def _pad(values: Mapping[str, Any], x: Array, pads: Array | None = None, value: Any = None, axes: Any = None) -> Any:
    each = numbers(pads) if pads is not None else list(values.get("pads") or values.get("paddings") or ())
    half = len(each) // 2
    over = numbers(axes) if axes is not None else list(range(half))
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
            factor = max(factor, float(prod(max(1, n) for n in numbers(m))))
    for s in values.get("scales") or ():
        factor *= max(float(s), 1.0)
    if not factor < 1 << 48:
        raise LoadError("asks for an enormous enlargement")
    return [x.size, int(factor)], x.itemsize


def _unpool(values: Mapping[str, Any], x: Array, indices: Array, shape: Array | None = None) -> Any:
    if shape is not None:
        return numbers(shape), x.itemsize
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


BOUNDS: dict[str, Bound] = {
    "Pad": _pad, "Resize": _resize, "Upsample": _resize, "MaxUnpool": _unpool, "ConvTranspose": _transposed,
    "RandomNormal": _attribute("shape"), "RandomUniform": _attribute("shape"),
    "HannWindow": _input(0), "HammingWindow": _input(0), "BlackmanWindow": _input(0), "AffineGrid": _input(1, 2),
    "CenterCropPad": _input(1), "Col2Im": _input(1), "DFT": _input(1),
    "Multinomial": lambda values, x: ([x.shape[0], abs(int(values.get("sample_size", 1)))], 8),
    "MelWeightMatrix": lambda values, bins, length, *_: ([abs(n) for n in numbers(bins) + numbers(length)], 8),
    "OneHot": lambda values, i, depth, *_: ([i.size, *(abs(n) for n in numbers(depth))], 8),
    "GridSample": lambda values, x, grid: ([*x.shape[:2], grid.size], x.itemsize),
    "RoiAlign": lambda values, x, rois, *_: (
        [rois.shape[0], x.shape[1], *(abs(int(values.get(f"output_{d}", 1))) for d in ("height", "width")),
         max(1, int(values.get("sampling_ratio", 0))) ** 2], x.itemsize),
    "MaxRoiPool": lambda values, x, rois: ([rois.shape[0], x.shape[1], *map(abs, values.get("pooled_shape", ()))], 4),
    "STFT": lambda values, x, step, window=None, length=None: ([x.size, *(abs(n) for n in numbers(length))], 8),
}  # fmt: skip
