"""MatMulNBits with large constant weights, which runs on the engine's kernels: beside onnxruntime."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from ternrun.onnx.format.reader import read_onnx
from ternrun.onnx.operators import blas, constant_matmul, quantized
from ternrun.onnx.runtime.session import Session

K, N, BLOCK = 512, 160, 64


def product(bits: int, zero: str, exact: bool = True) -> bytes:
    """One MatMulNBits, its weights in the file."""
    rng = np.random.default_rng(bits)
    scales = rng.uniform(0.01, 0.02, (N, K // BLOCK)).astype(np.float16 if exact else np.float32).astype(np.float32)
    weights = {"b": rng.integers(0, 256, (N, K // BLOCK, BLOCK * bits // 8), np.uint8), "s": scales}
    if zero == "packed":
        weights["z"] = rng.integers(0, 256, (N, K // BLOCK * bits // 8), np.uint8)
    elif zero == "float":
        weights["z"] = rng.uniform(0, 3, (N, K // BLOCK)).astype(np.float32)
    node = helper.make_node(
        "MatMulNBits", ["x", *weights], ["y"], domain="com.microsoft", K=K, N=N, bits=bits, block_size=BLOCK
    )
    x, y = (helper.make_tensor_value_info(n, 1, ["n", m, w]) for n, m, w in (("x", "m", K), ("y", "m", N)))
    initializers = [numpy_helper.from_array(v, n) for n, v in weights.items()]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", [x], [y], initializers)
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


@pytest.mark.parametrize(
    ("bits", "zero", "packed"),
    [(4, "", True), (4, "packed", True), (8, "", True), (2, "", True), (2, "packed", True), (4, "float", True),
     (8, "packed", False)],
)  # fmt: skip
@pytest.mark.parametrize("rows", [1, 7])
def test_beside_onnxruntime(bits: int, zero: str, packed: bool, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    native = quantized.ConstantMatMul
    monkeypatch.setattr(quantized, "ConstantMatMul", lambda tensor: made.append(tensor.type) or native(tensor))
    data = product(bits, zero)
    x = np.random.default_rng(0).standard_normal((2, rows, K), np.float32)
    wanted = onnxruntime.InferenceSession(data).run(None, {"x": x})[0]
    session = Session(read_onnx(data))
    for _ in range(2):
        found = session.run({"x": x})["y"]
        # a float zero point becomes a minimum in fp16
        np.testing.assert_allclose(found, wanted, atol=(2e-3 if zero == "float" else 2e-5) * np.ptp(wanted))
    assert bool(made) == packed
    assert len(made) <= 1  # not again at the second run


def test_scales_that_fp16_rounds() -> None:
    data = product(4, "", exact=False)
    x = np.random.default_rng(0).standard_normal((1, 3, K), np.float32)
    wanted = onnxruntime.InferenceSession(data).run(None, {"x": x})[0]
    np.testing.assert_allclose(Session(read_onnx(data)).run({"x": x})["y"], wanted, atol=1e-3 * np.ptp(wanted))


def test_no_rows_and_many_threads() -> None:
    session = Session(read_onnx(product(4, "packed")))
    assert session.run({"x": np.zeros((0, 3, K), np.float32)})["y"].shape == (0, 3, N)
    inputs = [np.random.default_rng(i).standard_normal((1, 5, K), np.float32) for i in range(16)]
    alone = [session.run({"x": x})["y"] for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: session.run({"x": x})["y"], inputs))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("node", [{"op_type": "MatMul"}, {"op_type": "Gemm"}, {"op_type": "Gemm", "transB": 1}])
def test_constant_floats(node: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(
        constant_matmul,
        "ConstantMatMul",
        lambda t, make=constant_matmul.ConstantMatMul: made.append(t.shape) or make(t),
    )
    weights = np.random.default_rng(0).standard_normal((K, N), np.float32)
    held = numpy_helper.from_array(np.ascontiguousarray(weights.T) if "transB" in node else weights, "w")
    x, y = (helper.make_tensor_value_info(n, 1, ["n", w]) for n, w in (("x", K), ("y", N)))
    graph = helper.make_graph([helper.make_node(inputs=["x", "w"], outputs=["y"], **node)], "g", [x], [y], [held])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    rows = np.random.default_rng(1).standard_normal((70, K), np.float32)
    found = Session(read_onnx(data)).run({"x": rows})["y"]
    np.testing.assert_allclose(found, rows.astype(np.float64) @ weights, atol=1e-4)
    assert made == [(N, K)]


def test_blas_gets_its_threads_back() -> None:
    found = blas._library()
    if found is None:
        pytest.skip("numpy has another BLAS")
    threads = found[1]()
    with blas.one_thread(), blas.one_thread():
        assert found[1]() == 1
    assert found[1]() == threads
