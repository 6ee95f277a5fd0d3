"""Graphs of halves as graphs of float32: beside onnxruntime, which computes halves in float32 as well."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper, parser

from ternrun.onnx.format.half_precision import HALVES, _from_half, in_float32
from ternrun.onnx.format.reader import read_onnx
from ternrun.onnx.runtime.session import Session

# constants are stated as bits: 0.5 and 2
GRAPH = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
mixed (float16[n, 8] x, bool flag) => (float16[n, 4] y, float[n, 4] z)
{
    h = MatMul (x, w)
    k = Constant <value = float16[1] {14336}> ()
    a = own.Halved (h)
    b = If (flag) <
        then_branch = one () => (float16[n, 4] t) { t = Mul (a, k) },
        else_branch = two () => (float16[n, 4] e) { e0 = Cast <to = 1> (a) e1 = Sqrt (e0) e = Cast <to = 10> (e1) }
    >
    y = Add (b, k)
    z = Cast <to = 1> (y)
}
<domain: "own", opset_import: ["" : 21]> Halved (v) => (r)
{ o = Constant <value = float16[1] {16384}> () r = Div (v, o) }
"""


def mixed() -> onnx.ModelProto:
    model = parser.parse_model(GRAPH)
    weight = np.random.default_rng(3).uniform(0.1, 1, (8, 4)).astype(np.float16)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return model


@pytest.mark.parametrize("flag", [True, False])
def test_the_same_numbers_as_onnxruntime(flag: bool) -> None:
    data = mixed().SerializeToString()
    x = np.random.default_rng(4).uniform(0, 1, (3, 8)).astype(np.float16)
    wanted = onnxruntime.InferenceSession(data).run(None, {"x": x, "flag": np.array(flag)})
    session = Session(in_float32(read_onnx(data)))
    assert [v.dtype for v in (*session.inputs, *session.outputs)] == ["FLOAT", "BOOL", "FLOAT", "FLOAT"]
    found = session.run({"x": x.astype(np.float32), "flag": np.array(flag)})
    assert found["y"].dtype == found["z"].dtype == np.float32
    for name, other in zip("yz", wanted, strict=True):
        np.testing.assert_allclose(found[name], other.astype(np.float32), rtol=3e-3)  # it rounds once or twice more


def test_every_half_there_is() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16).view("<i2")
    expected = bits.view("<f2").astype("<f4")
    np.testing.assert_array_equal(_from_half(bits).view(np.uint32), expected.view(np.uint32))


def test_bfloat16_and_what_is_left_alone() -> None:
    numbers = np.array([1.5, -2.0, np.inf, 0.0], np.float32)
    brain = helper.make_tensor("b", 16, [4], (numbers.view("<u4") >> 16).astype("<u2").tobytes(), raw=True)
    node = helper.make_node("Cast", ["b"], ["y"], to=7)
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", 7, [4])], [brain])
    before = read_onnx(helper.make_model(graph).SerializeToString())
    after = in_float32(before)
    np.testing.assert_array_equal(after.graph.initializers["b"].array(), numbers)
    assert after.graph.nodes[0] is before.graph.nodes[0]
    assert not {t.dtype for t in after.graph.initializers.values()} & set(HALVES)
