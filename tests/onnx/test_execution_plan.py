"""What the plan adds to the operators: folding, liveness, writing over dead inputs, captures, functions, bounds."""

import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from ternrun.errors import LoadError, UsageError
from ternrun.onnx.format.limits import limited_to
from ternrun.onnx.format.reader import read_onnx
from ternrun.onnx.runtime.session import Session

HEAD = '<ir_version: 10, opset_import: ["" : 21, "local" : 1]>'


def session(text: str) -> Session:
    return Session(read_onnx(parser.parse_model(f"{HEAD} {text}").SerializeToString()))


def of_nodes(nodes, inputs=(), outputs=("y",), initializers=(), opset: int = 21, **kwargs) -> Session:
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in inputs]
    results = [onnx.ValueInfoProto(name=n) for n in outputs]
    graph = helper.make_graph(nodes, "g", infos, results, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **kwargs)
    return Session(read_onnx(model.SerializeToString()))


def test_what_depends_on_constants_alone_is_computed_once():
    s = session("""g (float[n] x) => (float[n] y) {
        two = Constant <value_float = 2.0> ()
        four = Mul (two, two)
        root = Sqrt (four)
        y = Mul (x, root)
    }""")
    assert [step.node.op for step in s._plan.steps] == ["Mul"]
    assert s.run({"x": np.ones(3, np.float32)})["y"].tolist() == [2, 2, 2]


def test_random_numbers_are_not_folded():
    s = session("g () => (float[4] y) { y = RandomNormal <shape = [4]> () }")
    assert len(s._plan.steps) == 1


def test_results_are_let_go_of_after_their_last_reader():
    s = session("""g (float[n] x) => (float[n] y) {
        a = Neg (x)
        b = Neg (a)
        c = Add (a, b)
        y = Neg (c)
    }""")
    dead = [len(step.dead) for step in s._plan.steps]
    assert dead == [1, 0, 2, 1]


def test_large_dead_inputs_are_written_over_and_the_callers_are_not():
    s = session("""g (float[n] x) => (float[n] y, float[m] z) {
        a = Neg (x)
        b = Exp (a)
        y = Add (b, x)
        shape = Constant <value = int64[1] {-1}> ()
        c = Neg (x)
        z = Reshape (c, shape)
        d = Neg (c)
    }""")
    reused = {step.node.op: step.reuse for step in s._plan.steps if step.reuse}
    assert reused == {"Exp": (0,), "Add": (0,)}  # not c, which z looks into
    x = np.linspace(-1, 1, 100_000).astype(np.float32)
    before = x.copy()
    out = s.run({"x": x})
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(out["y"], np.exp(-x) + x)
    np.testing.assert_array_equal(out["z"], -x)


def test_constants_cannot_be_written_to():
    s = of_nodes([helper.make_node("Identity", ["w"], ["y"])], initializers=[numpy_helper.from_array(np.ones(3), "w")])
    with pytest.raises(ValueError, match="read-only"):
        s.run({})["y"][0] = 5


def test_an_initializer_may_be_fed():
    w = numpy_helper.from_array(np.ones(2, np.float32), "w")
    node = helper.make_node("Add", ["x", "w"], ["y"])
    s = of_nodes([node], ["x", "w"], initializers=[w])
    x = np.array([1, 2], np.float32)
    assert s.run({"x": x})["y"].tolist() == [2, 3]
    assert s.run({"x": x, "w": x})["y"].tolist() == [2, 4]


def test_a_branch_reads_the_graphs_around_it():
    s = session("""g (float[n] x, bool c) => (float[n] y) {
        a = Neg (x)
        y = If (c) <
            then_branch = t () => (float[n] p) {
                p = If (c) <
                    then_branch = u () => (float[n] q) { q = Add (a, x) },
                    else_branch = v () => (float[n] q) { q = Neg (x) }
                >
            },
            else_branch = e () => (float[n] a) { }
        >
    }""")
    x = np.array([1, 2], np.float32)
    assert s.run({"x": x, "c": np.array(True)})["y"].tolist() == [0, 0]
    assert s.run({"x": x, "c": np.array(False)})["y"].tolist() == [-1, -2]


def test_loops_carry_and_collect():
    s = session("""g (int64 n, float x) => (float y, float[k] all) {
        go = Constant <value = bool {1}> ()
        y, all = Loop (n, go, x) <body = b (int64 i, bool c, float v) => (bool d, float w, float out) {
            d = Identity (c)
            w = Add (v, v)
            out = Identity (v)
        }>
    }""")
    out = s.run({"n": np.array(4), "x": np.array(1, np.float32)})
    assert out["y"] == 16
    assert out["all"].tolist() == [1, 2, 4, 8]
    out = s.run({"n": np.array(0), "x": np.array(1, np.float32)})
    assert out["y"] == 1
    assert out["all"].shape == (0,)


FUNCTIONS = """
<domain: "local", opset_import: ["" : 21]>
scaled <alpha>(x) => (y) {
    a = Constant <value_float: float = @alpha> ()
    y = Mul (x, a)
}
"""


def test_functions_of_the_file_with_their_attributes():
    s = session(
        """g (float[n] x) => (float[n] y) {
        a = local.scaled <alpha = 3.0> (x)
        y = local.scaled <alpha = -1.0> (a)
    } """
        + FUNCTIONS
    )
    assert s.run({"x": np.array([1, 2], np.float32)})["y"].tolist() == [-3, -6]


def test_threads_may_share_a_session():
    from concurrent.futures import ThreadPoolExecutor

    s = session("g (float[n] x) => (float[n] y) { a = Neg (x) y = Exp (a) }")
    xs = [np.full(50_000, i, np.float32) for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        for x, out in zip(xs, pool.map(lambda x: s.run({"x": x})["y"], xs), strict=True):
            np.testing.assert_array_equal(out, np.exp(-x))


@pytest.mark.parametrize(
    ("feeds", "fault"),
    [
        ({}, "input 'x' has no value"),
        ({"x": np.ones(3, np.float32), "z": 1}, "no input 'z'; it has x"),
        ({"x": np.ones(3)}, "is of type float64; the graph wants float32"),
        ({"x": np.ones((3, 3), np.float32)}, "has 2 dimensions; the graph wants 1"),
    ],
)
def test_inputs_that_do_not_fit(feeds, fault):
    with pytest.raises(UsageError, match=fault):
        session("g (float[n] x) => (float[n] y) { y = Neg (x) }").run(feeds)


def endless() -> Session:
    return session("""g (float x) => (float y) {
        y = Loop (, , x) <body = b (int64 i, bool c, float v) => (bool d, float w) {
            d = Identity (c)
            w = Identity (v)
        }>
    }""")


def ints(*values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), "n")


GROWING = {
    "ConstantOfShape": ([], ints(1 << 20, 1 << 20)),
    "Expand": (["x"], ints(1 << 40, 4)),
    "Tile": (["x"], ints(1 << 40)),
    "HannWindow": ([], numpy_helper.from_array(np.array(1 << 40), "n")),
    "Pad": (["x"], ints(0, 1 << 40)),
    "RandomNormal": (None, None),
}


@pytest.mark.parametrize("op", GROWING)
def test_a_few_bytes_cannot_ask_for_terabytes(op):
    start = time.monotonic()
    names, tensor = GROWING[op]
    attributes = {"shape": [1 << 20, 1 << 20]} if tensor is None else {}
    node = helper.make_node(op, [] if names is None else [*names, "n"], ["y"], name="bomb", **attributes)
    with pytest.raises(LoadError, match=r"node 'bomb' \(\w+\) asks for a tensor of shape"):
        of_nodes([node], names or [], initializers=[tensor] if tensor is not None else []).run(
            {"x": np.ones(4, np.float32)} if names else {}
        )
    assert time.monotonic() - start < 5


def test_broadcasting_and_doubling_are_bounded_too():
    nodes = [
        helper.make_node("Reshape", ["x", "column"], ["c"]),
        helper.make_node("Add", ["c", "x"], ["y"], name="big"),
    ]
    column = numpy_helper.from_array(np.array([-1, 1]), "column")
    with pytest.raises(LoadError, match=r"node 'big' \(Add\) asks for a tensor"):
        of_nodes(nodes, ["x"], initializers=[column]).run({"x": np.ones(1 << 20, np.float32)})
    nodes = [helper.make_node("Concat", [f"y{i}"] * 2, [f"y{i + 1}"], axis=0) for i in range(60)]
    with limited_to(1 << 26), pytest.raises(LoadError, match=r"\(Concat\) asks for a tensor|holds more than"):
        of_nodes(nodes, ["y0"], ["y60"]).run({"y0": np.ones(1 << 16, np.float32)})


def test_loops_without_end_are_ended(monkeypatch):
    monkeypatch.setattr("ternrun.onnx.runtime.session.MAX_STEPS", 10_000)
    with pytest.raises(LoadError, match=r"node 'y' \(Loop\) .*a loop does not end"):
        endless().run({"x": np.array(1, np.float32)})


@pytest.mark.parametrize(
    ("node", "fault"),
    [
        (
            helper.make_node("NoSuch", ["x"], ["y"], name="odd"),
            r"node 'odd' \(NoSuch\) is an operator that ternrun does",
        ),
        (
            helper.make_node("Neg", ["x"], ["y"], domain="far", name="odd"),
            r"the operator set 'far', which the model does",
        ),
        (helper.make_node("Softmax", ["x"], ["y"], axis="a"), r"attribute 'axis' is 'a', not of type int"),
        (helper.make_node("Concat", ["x"], ["y"]), "states no axis"),
        (helper.make_node("If", ["x"], ["y"]), "wants a then_branch and an else_branch"),
    ],
)
def test_nodes_that_cannot_be_run_are_named(node, fault):
    with pytest.raises(LoadError, match=fault):
        of_nodes([node], ["x"])


def test_a_failure_names_the_node():
    s = of_nodes([helper.make_node("MatMul", ["x", "x"], ["y"], name="product")], ["x"])
    with pytest.raises(LoadError, match=r"node 'product' \(MatMul\) failed: "):
        s.run({"x": np.ones((2, 3), np.float32)})
