"""Steps that become one: the same results, and only where nobody else reads what is between."""

import math

import numpy as np
import pytest
from onnx import helper, numpy_helper

from ternrun.errors import LoadError
from ternrun.onnx.format.reader import read_onnx
from ternrun.onnx.runtime.session import Session

X = np.random.default_rng(0).standard_normal((40, 512)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((512, 160)).astype(np.float32)
BIAS = np.random.default_rng(2).standard_normal(160).astype(np.float32)
CONSTANTS = {
    "w": W, "bias": BIAS, "root": np.float32(2**0.5), "inverse": np.float32(0.5**0.5), "one": np.float32(1),
    "half": np.float32(0.5), "other": np.float32(0.7),
}  # fmt: skip


def session(nodes: str, *outputs: str) -> Session:
    """Nodes as `y = Op a b; ...` of the input x."""
    made = []
    for line in nodes.split(";"):
        name, call = line.split("=")
        op, *inputs = call.split()
        made.append(helper.make_node(op, inputs, [name.strip()]))
    read = {i for n in made for i in n.input}
    graph = helper.make_graph(
        made, "g", [helper.make_tensor_value_info("x", 1, None)],
        [helper.make_tensor_value_info(o, 1, None) for o in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in CONSTANTS.items() if n in read],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Session(read_onnx(model.SerializeToString()))


def gelu(x):
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize("add", ["Add p bias", "Add bias p"])
@pytest.mark.parametrize("x", [X, X[:1], X.reshape(2, 20, 512)])
def test_a_product_and_its_bias(add, x):
    s = session(f"p = MatMul x w; y = {add}", "y")
    assert len(s._plan.steps) == 1
    np.testing.assert_allclose(s.run({"x": x})["y"], x @ W + BIAS, atol=1e-4)


def test_a_sum_that_is_no_bias():
    s = session("p = MatMul x w; q = Neg p; r = MatMul x w; y = Add r q", "y")
    assert [step.node.op for step in s._plan.steps] == ["MatMul", "Neg", "MatMul"]
    assert not s.run({"x": X})["y"].any()
    assert session("p = MatMul x w; y = Add p one", "y").run({"x": X})["y"].shape == (40, 160)


def test_a_product_that_others_read():
    s = session("p = MatMul x w; y = Add p bias", "y", "p")
    found = s.run({"x": X})
    np.testing.assert_allclose(found["y"] - found["p"], np.broadcast_to(BIAS, (40, 160)), atol=1e-4)
    assert len(session("p = MatMul x w; y = Add p p", "y")._plan.steps) == 2


def test_only_the_first_of_two_sums():
    s = session("p = MatMul x w; q = Add p bias; y = Add q bias", "y")
    assert len(s._plan.steps) == 2
    np.testing.assert_allclose(s.run({"x": X})["y"], X @ W + 2 * BIAS, atol=1e-4)


@pytest.mark.parametrize(
    "nodes",
    ["a = Div x root; b = Erf a; c = Add b one; d = Mul x c; y = Mul d half",
     "a = Mul x inverse; b = Erf a; c = Add one b; d = Mul c half; y = Mul x d",
     "a = Div x root; b = Erf a; c = Add b one; d = Mul x half; y = Mul d c"],
)  # fmt: skip
@pytest.mark.parametrize("x", [X, X[0, :3]])
def test_gelu(nodes, x):
    s = session(nodes, "y")
    assert len(s._plan.steps) == 1
    kept = x.copy()
    np.testing.assert_allclose(s.run({"x": x})["y"], gelu(x), atol=2e-6)
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize(
    "nodes",
    ["a = Div x root; b = Erf a; c = Add b one; d = Mul x c; y = Mul d other",
     "a = Mul x root; b = Erf a; c = Add b one; d = Mul x c; y = Mul d half",
     "a = Div x root; b = Erf a; c = Add b half; d = Mul x c; y = Mul d half",
     "z = Neg x; a = Div x root; b = Erf a; c = Add b one; d = Mul z c; y = Mul d half"],
)  # fmt: skip
def test_what_only_looks_like_gelu(nodes):
    s = session(nodes, "y")
    assert len(s._plan.steps) == nodes.count("=")
    assert np.abs(s.run({"x": X})["y"] - gelu(X)).max() > 0.1


@pytest.mark.parametrize("nodes", ["s = Sigmoid x; y = Mul x s", "s = Sigmoid x; y = Mul s x"])
@pytest.mark.parametrize("x", [X, X[0, :3]])
def test_silu(nodes, x):
    s = session(nodes, "y")
    assert len(s._plan.steps) == 1
    np.testing.assert_allclose(s.run({"x": x})["y"], x / (1 + np.exp(-x)), atol=2e-6)
    assert len(session("z = Neg x; s = Sigmoid z; y = Mul x s", "y")._plan.steps) == 3


@pytest.mark.parametrize("nodes", ["p = MatMul x w; y = Add p", "a = Div x; b = Erf a; c = Add b one; y = Mul c half"])
def test_nodes_that_lack_an_input(nodes):
    with pytest.raises(LoadError):
        session(nodes, "y").run({"x": X})


def test_gelu_writes_over_what_nobody_reads_again():
    s = session(
        "p = MatMul x w; q = Add p bias; a = Div q root; b = Erf a; c = Add b one; d = Mul q c; y = Mul d half", "y"
    )
    assert len(s._plan.steps) == 2
    assert s._plan.steps[1].reuse == (0,)
    big = np.repeat(X, 8, 0)
    np.testing.assert_allclose(s.run({"x": big})["y"], gelu(big @ W + BIAS), atol=1e-4)
