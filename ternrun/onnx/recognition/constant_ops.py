"""Operators on values that do not depend on the tokens: the runtime's kernels, with tighter bounds for a symbolic
run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx import operators
from ternrun.onnx.format.graph import Node
from ternrun.onnx.format.limits import limited_to
from ternrun.onnx.format.tensors import CODES, DTYPES
from ternrun.onnx.operators.table import TABLE, Kernel, OpKernelInfo

assert operators.__all__  # the import fills TABLE

MAX_BYTES = 1 << 27  # bytes of one array
MAX_MULTIPLICATIONS = 1 << 24  # multiplications of one matrix product

VIEWS = frozenset(
    {"Identity", "Dropout", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Expand", "Tile", "Slice",
     "Gather", "Split"}
)  # fmt: skip
CONSTANT_OPS = VIEWS | {
    "Abs", "Add", "And", "BitwiseAnd", "BitwiseOr", "Cast", "CastLike", "Ceil", "Clip", "Concat", "Constant",
    "ConstantOfShape", "Cos", "CumSum", "DequantizeLinear", "Div", "Equal", "Exp", "Floor", "GatherND", "Greater",
    "GreaterOrEqual", "IsNaN", "Less", "LessOrEqual", "Log", "MatMul", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or",
    "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Round",
    "ScatterND", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Softmax", "Sqrt", "Sub", "Sum", "Tanh", "Trilu", "Where",
    "Xor",
}  # fmt: skip


@contextmanager
def bounded() -> Iterator[None]:
    """Within the context, an operator that exceeds MAX_BYTES or MAX_MULTIPLICATIONS raises LoadError."""
    with limited_to(MAX_BYTES, MAX_MULTIPLICATIONS), np.errstate(all="ignore"):
        yield


def constant_kernel(node: Node, opsets: Mapping[str, int]) -> Kernel:
    """The runtime's kernel of an ONNX operator; takes arrays, returns an array or a tuple of arrays.

    Raises LoadError for an operator, or a form of it, without a kernel in the table.
    """
    version = opsets.get("", 1)
    row = TABLE.get(("", node.op))
    made = (
        row.make(OpKernelInfo(_in_numpy_types(node), version, _no_reference)) if row and version >= row.since else None
    )
    if made is None:
        raise LoadError(f"is not followed in this form (operator set {version})")
    return made


def _in_numpy_types(node: Node) -> Node:
    """Replace a Cast to a type that numpy does not have, like bfloat16, by a Cast to float32, which the trace uses
    for it.
    """
    target = DTYPES.get(node.attributes.get("to", 0)) if node.op == "Cast" else None
    if target is None or target.numpy is not None:
        return node
    return replace(node, attributes=dict(node.attributes) | {"to": CODES["FLOAT"]})


def _no_reference() -> Kernel:
    """Raises LoadError: the trace does not use the onnx package, and so none of its reference kernels."""
    raise LoadError("is not followed for values of this type")
