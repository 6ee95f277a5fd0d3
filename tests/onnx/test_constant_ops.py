"""Constants of a traced graph go through the runtime's kernels: same results as the reference, tighter bounds."""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from ternrun.errors import LoadError
from ternrun.onnx.format.graph import Node
from ternrun.onnx.operators.table import TABLE
from ternrun.onnx.recognition.constant_ops import CONSTANT_OPS, MAX_BYTES, bounded, constant_kernel

INTEGERS = np.array([[5, -3, 7], [-8, 2, 0]])
FLOATS = np.array([[0.5, -3, np.nan], [-8, 2, 0]], np.float32)
CASES = {
    "CastLike": [INTEGERS, FLOATS],
    "CumSum": [INTEGERS, np.array(1)],
    "IsNaN": [FLOATS],
    "Mod": [INTEGERS, np.array([3, -3, 4])],
    "ReduceProd": [INTEGERS.astype(np.int32)],
    "Sign": [FLOATS[1:]],
}


@pytest.mark.parametrize("op", sorted(CONSTANT_OPS))
def test_every_constant_operator_has_a_kernel_of_the_runtime(op: str) -> None:
    assert ("", op) in TABLE


@pytest.mark.parametrize("op", sorted(CASES))
def test_kernels_equal_the_reference(op: str) -> None:
    inputs = CASES[op]
    names = [f"x{i}" for i in range(len(inputs))]
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
             for n, x in zip(names, inputs, strict=True)]  # fmt: skip
    graph = helper.make_graph([helper.make_node(op, names, ["y"])], "g", infos, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    (wanted,) = ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))
    given = constant_kernel(Node(op, (), ("y",)), {"": 18})(*inputs)
    assert given.dtype == wanted.dtype
    np.testing.assert_array_equal(given, wanted)


def test_a_slice_before_opset_10_states_its_ranges_in_attributes() -> None:
    node = Node("Slice", (), ("y",), {"starts": [0, -2], "ends": [1, 1 << 40], "axes": [0, 1]})
    np.testing.assert_array_equal(constant_kernel(node, {"": 9})(INTEGERS), [[-3, 7]])


def test_a_cast_to_bfloat16_gives_float32() -> None:
    given = constant_kernel(Node("Cast", (), ("y",), {"to": onnx.TensorProto.BFLOAT16}), {"": 18})(INTEGERS)
    assert given.dtype == np.float32


@pytest.mark.parametrize(
    ("op", "attributes", "inputs"),
    [
        ("Expand", {}, [np.zeros(1), np.array([MAX_BYTES // 8 + 1])]),
        ("Tile", {}, [np.zeros(2), np.array([MAX_BYTES])]),
        ("ConstantOfShape", {}, [np.array([MAX_BYTES])]),
        ("Range", {}, [np.array(0), np.array(1 << 40), np.array(1)]),
        ("MatMul", {}, [np.zeros((512, 512)), np.zeros((512, 512))]),
        ("MatMul", {}, [np.zeros((16, 1 << 14), np.int64), np.zeros((1 << 14, 256), np.int64)]),
        ("Add", {}, [np.zeros((1 << 13, 1)), np.zeros((1, 1 << 13))]),
    ],
)
def test_work_beyond_the_bounds_is_refused(op: str, attributes: dict, inputs: list[np.ndarray]) -> None:
    kernel = constant_kernel(Node(op, (), ("y",), attributes), {"": 18})
    with bounded(), pytest.raises(LoadError, match="asks for"):
        kernel(*inputs)


def test_an_operator_that_only_the_reference_has_is_refused() -> None:
    with pytest.raises(LoadError, match="not followed"):
        constant_kernel(Node("CumSum", (), ("y",), {"reverse": 1}), {"": 18})
