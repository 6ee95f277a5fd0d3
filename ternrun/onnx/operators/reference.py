"""Operators of the onnx package's reference implementation, with bounds on large results."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from ternrun.errors import LoadError
from ternrun.onnx.format.graph import Graph, Node, Reference
from ternrun.onnx.format.limits import check_tensor_size, check_work
from ternrun.onnx.operators.bounds import BOUNDS
from ternrun.onnx.operators.table import Kernel

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
    """The package's kernel of a node, or None; `values` are the resolved attributes.

    Raises LoadError for attributes that the package would reject, or that name another file.
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
        if not isinstance(cls, type):  # a function of the specification, which `specification` expands
            return None
        run_params = {"log": lambda *_: None, "opsets": dict(opsets), "verbose": 0, "new_ops": {},
                      "existing_functions": {}, "evaluator_cls": None}  # fmt: skip
        run = cls(_proto(node, values), run_params).run
    except (RuntimeContextError, RuntimeImplementationError):
        return None
    except NotImplementedError:
        return None
    except AssertionError:  # an operator that is defined only by a function
        return None
    bound = BOUNDS.get(node.op)
    if bound is None:
        return run  # type: ignore[no-any-return]

    def kernel(*inputs: Any) -> Any:
        shape, itemsize = bound(values, *inputs)
        check_tensor_size(shape, itemsize)
        check_work(prod(shape))
        return run(*inputs)

    return kernel


def _nothing(domain: str) -> dict[str, Any]:
    """The extra argument of load_op in ONNX's own domain."""
    return {"evaluator_cls": None} if domain == "" else {}


def _proto(node: Node, values: Mapping[str, Any]) -> Any:
    """The node for the package, with resolved attributes, and without any that would open a file."""
    from onnx import NodeProto, TensorProto, helper

    proto = NodeProto.FromString(bytes(node.proto)) if node.proto else NodeProto(op_type=node.op, domain=node.domain)
    stated_here = [a for a in proto.attribute if not a.ref_attr_name and a.name in values]
    for attribute in stated_here:
        tensors = [attribute.t, *attribute.tensors]
        if any(t.data_location == TensorProto.EXTERNAL for t in tensors):
            raise LoadError("keeps the tensor of an attribute in a file of its own, which is not supported")
    stated = {a.name for a in stated_here}
    added = []
    for name, value in values.items():
        if name not in stated:
            if isinstance(value, (Graph, Reference)):
                raise LoadError(f"attribute {name[:40]!r} is not supported here")
            added.append(helper.make_attribute(name, _plain(value)))
    del proto.attribute[:]
    proto.attribute.extend([*stated_here, *added])
    return proto


def _plain(value: Any) -> Any:
    """An attribute value in the onnx package's types."""
    from onnx import numpy_helper

    return numpy_helper.from_array(value.array()) if hasattr(value, "array") else value
