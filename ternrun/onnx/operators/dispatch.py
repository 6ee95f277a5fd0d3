"""Choose the kernel of a node.

The first of these that has the operator is used: the table of this package, the functions of the file, the onnx
package's reference, and the functions by which the specification defines its newer operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from ternrun.errors import LoadError, MissingExtra
from ternrun.onnx.format.graph import Function, Graph, Node, Reference
from ternrun.onnx.format.reader import read_onnx
from ternrun.onnx.operators.reference import RANDOM, reference_kernel
from ternrun.onnx.operators.table import TABLE, Kernel, OpKernelInfo

Functions = Mapping[tuple[str, str, str], Function]


@dataclass(frozen=True, slots=True)
class Scope:
    """The context of a graph's nodes: functions, versions of operator sets, and the attributes of a function's call."""

    functions: Functions
    opsets: Mapping[str, int]
    attributes: Mapping[str, Any]
    trusted: bool = False  # a function of the specification may use operator sets that the file does not import


def resolved(node: Node, scope: Scope) -> Node:
    """The node with references to a function's attributes replaced by the call's values."""
    if not any(isinstance(value, Reference) for value in node.attributes.values()):
        return node
    values = {}
    for name, value in node.attributes.items():
        if isinstance(value, Reference):
            if value.name in scope.attributes:
                values[name] = scope.attributes[value.name]
        else:
            values[name] = value
    return replace(node, attributes=values)


def version(node: Node, scope: Scope) -> int:
    """The version of the node's operator set. Raises LoadError for a set that the file does not import."""
    found = scope.opsets.get(node.domain)
    if found is not None:
        return found
    if node.domain == "com.microsoft" or scope.trusted:
        return 1
    raise LoadError(f"belongs to the operator set {node.domain[:60]!r}, which the model does not import")


def own_kernel(node: Node, scope: Scope, constants: tuple[Any, ...] = ()) -> tuple[Kernel, bool, bool] | None:
    """(kernel, whether its results are fresh, whether it takes `out=`) from the table, or None.

    `constants`: values of the inputs; None for an input that changes.
    """
    row = TABLE.get((node.domain, node.op))
    opset = version(node, scope)
    if row is None or opset < row.since:
        return None
    kernel = row.make(OpKernelInfo(node, opset, cache(lambda: _reference(node, scope)), constants))
    return None if kernel is None else (kernel, row.fresh, row.reuse)


def _reference(node: Node, scope: Scope) -> Kernel:
    """The onnx package's kernel. Raises LoadError if there is none."""
    kernel = reference_kernel(node, scope.opsets, node.attributes)
    if kernel is None:
        raise LoadError(f"is not supported in this form (operator set {scope.opsets.get(node.domain)})")
    return kernel


def foldable(node: Node) -> bool:
    """Whether the operator returns the same results for the same inputs."""
    return node.op not in RANDOM and not (node.op == "Dropout" and len(node.inputs) > 2)


def specification(node: Node, scope: Scope, inputs: tuple[Any, ...] | None) -> Function | None:
    """The function that defines the operator for inputs of these types, or None for an operator without a definition.

    Raises NeedsTypes if the definition depends on types and `inputs` is None.
    """
    try:
        from onnx import FunctionProto, defs, helper
    except ImportError as e:
        raise MissingExtra("running an ONNX graph", "onnx") from e
    try:
        schema = defs.get_schema(node.op, version(node, scope), node.domain)
    except defs.SchemaError:
        return None
    if schema.has_function:
        proto = schema.function_body
    elif schema.has_context_dependent_function:
        if inputs is None:
            raise NeedsTypes
        types = []
        for x in inputs:
            if isinstance(x, np.ndarray):
                kind = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(x.dtype), None)
            elif isinstance(x, list) and x:
                inner = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(x[0].dtype), None)
                kind = helper.make_sequence_type_proto(inner)
            else:
                kind = helper.make_tensor_type_proto(1, None)
            types.append(kind.SerializeToString())
        body = schema.get_context_dependent_function(bytes(node.proto), types)
        proto = FunctionProto.FromString(body)
    else:
        return None
    return _as_ours(proto, node, scope)


class NeedsTypes(Exception):  # noqa: N818  not an error
    """An operator's definition depends on the types of its inputs."""


def _as_ours(proto: Any, node: Node, scope: Scope) -> Function | None:
    """Convert a FunctionProto to a Function, with the checks of a file's functions."""
    from onnx import defs, helper

    if not proto.domain:
        proto.domain = "ternrun.specification"
    opsets = {o.domain: o.version for o in proto.opset_import} or {node.domain: version(node, scope)}
    opsets.setdefault("", min(scope.opsets.get("", 0), defs.onnx_opset_version()) or defs.onnx_opset_version())
    del proto.opset_import[:]
    proto.opset_import.extend(helper.make_opsetid(d, v) for d, v in opsets.items())
    model = helper.make_model(helper.make_graph([], "", [], []), functions=[proto])
    function = next(iter(read_onnx(model.SerializeToString()).functions.values()))
    schema = defs.get_schema(node.op, version(node, scope), node.domain)
    defaults = {a.name: helper.get_attribute_value(a.default_value) for a in schema.attributes.values()
                if a.default_value.type and a.default_value.name}  # fmt: skip
    plain = {k: v.decode() if isinstance(v, bytes) else v for k, v in defaults.items()}
    return replace(function, defaults=plain | dict(function.defaults))


def graphs_of(node: Node) -> dict[str, Graph]:
    """The graphs among the attributes, by name."""
    return {name: value for name, value in node.attributes.items() if isinstance(value, Graph)}
