"""Weights that nobody can write to need not be the same in every run: what is made of them is made anew then."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ternrun.onnx.format.reader import read_onnx
from ternrun.onnx.operators.constant_cache import ConstantCache
from ternrun.onnx.runtime.session import Session

N, K = 8, 32
CODES = np.array([9, 7, 10])  # 4 bits; the weight is the code less 8
NODE = helper.make_node("MatMulNBits", ["x", "b", "s"], ["y"], domain="com.microsoft", N=N, K=K, bits=4, block_size=32)
X, Y = (helper.make_tensor_value_info(n, 1, None) for n in "xy")
ONES = np.ones((1, K), np.float32)
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]


def packed(code: int) -> np.ndarray:
    return np.full((N, 1, 16), code * 17, np.uint8)


def session(nodes: list, inputs: list, outputs: list, **constants: np.ndarray) -> Session:
    held = [numpy_helper.from_array(v, n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    return Session(read_onnx(helper.make_model(graph, opset_imports=OPSETS, ir_version=10).SerializeToString()))


def test_weights_that_are_expanded() -> None:
    nodes = [
        helper.make_node("Gather", ["stack", "i"], ["one"], axis=0),
        helper.make_node("Expand", ["one", "shape"], ["b"]),
        NODE,
    ]
    chosen = session(
        nodes, [X, helper.make_tensor_value_info("i", TensorProto.INT64, [1])], [Y],
        stack=np.stack([packed(c)[0] for c in CODES]), shape=np.array([N, 1, 16]), s=np.ones(N, np.float32),
    )  # fmt: skip
    for i, code in enumerate(CODES):
        y = chosen.run({"x": ONES, "i": np.array([i])})["y"]
        np.testing.assert_array_equal(y, np.full((1, N), K * (code - 8.0)))


def test_weights_that_a_loop_cuts_from_a_constant() -> None:
    nodes = [
        helper.make_node("Identity", ["c"], ["on"]),
        helper.make_node("Unsqueeze", ["i", "zero"], ["from"]),
        helper.make_node("Add", ["from", "one"], ["to"]),
        helper.make_node("Slice", ["stack", "from", "to", "zero"], ["row"]),
        helper.make_node("Squeeze", ["row", "zero"], ["b"]),
        NODE,
    ]
    counters = [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("c", 9, [])]
    body = helper.make_graph(nodes, "body", counters, [helper.make_tensor_value_info("on", 9, []), Y])
    loop = session(
        [helper.make_node("Loop", ["trips", "go"], ["ys"], body=body)], [X],
        [helper.make_tensor_value_info("ys", 1, None)],
        stack=np.stack([packed(c) for c in CODES]), s=np.ones(N, np.float32), zero=np.array([0]), one=np.array([1]),
        trips=np.array(3), go=np.array(True),
    )  # fmt: skip
    np.testing.assert_array_equal(loop.run({"x": ONES})["ys"][:, 0, 0], K * (CODES - 8.0))


@pytest.mark.parametrize("same_memory", [False, True])
def test_weights_that_are_fed_read_only(same_memory: bool) -> None:
    fed = session([NODE], [X, *(helper.make_tensor_value_info(n, t, None) for n, t in (("b", 2), ("s", 1)))], [Y])
    scales, memory = np.ones(N, np.float32), packed(0)
    view = memory.view()
    scales.flags.writeable = view.flags.writeable = False
    for code in CODES:
        memory[:] = code * 17
        b = view if same_memory else memory.copy()
        b.flags.writeable = False
        np.testing.assert_array_equal(fed.run({"x": ONES, "b": b, "s": scales})["y"][0], K * (code - 8.0))


def test_what_is_kept_is_made_once_for_the_same_operands() -> None:
    made = []
    cached = ConstantCache(lambda *operands: made.append(operands) or len(made))
    a, b = np.zeros(2), np.zeros(2)
    assert [cached(a), cached(a)] == [1, 2]
    a.flags.writeable = b.flags.writeable = False
    assert [cached(a, None), cached(a, None), cached(b, None), cached(b, b), cached(a, None)] == [3, 3, 4, 5, 6]
