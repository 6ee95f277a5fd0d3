"""Graphs that were damaged at random, run: a result or one clear error, in bounded time and memory.

`python -m tests.onnx.test_run_fuzz 3000` goes on for as many as it is told.
"""

import random
import sys
import time
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from ternrun.errors import LoadError, UsageError
from ternrun.onnx.format.limits import limited_to
from ternrun.onnx.format.reader import read_onnx
from ternrun.onnx.operators.table import TABLE
from ternrun.onnx.runtime.session import Session
from tests.onnx.bert import bert_graph, tiny_weights
from tests.onnx.test_generate import odd_decoder

SECONDS = 10  # of the processor, that one damaged graph may take
FOUND = (1982, 2251, 3847)  # those that once took too long: a loop, TopK, blocks of 2**31
LARGEST = 1 << 26  # bytes of a tensor
MS = "com.microsoft"
NUMBERS = [0, 1, -1, 2, 3, 7, 16, 255, 1 << 16, 1 << 31, (1 << 31) - 1, 1 << 40, (1 << 63) - 1, -(1 << 63)]


def sampler() -> onnx.ModelProto:
    """A node of many kinds, each on its own inputs."""
    rng = np.random.default_rng(0)

    def f(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    def i(*values):
        return np.array(values, np.int64)

    qkv, cache, tables = f(1, 3, 32), f(1, 1, 4, 16), f(16, 8)
    codes = rng.integers(0, 256, (6, 2, 16)).astype(np.uint8)
    rows = [
        ("Conv", [f(1, 2, 6, 6), f(4, 2, 3, 3), f(4)], {"pads": [1, 1, 1, 1], "strides": [2, 1]}),
        ("MaxPool", [f(1, 2, 6, 6)], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        ("AveragePool", [f(1, 2, 6, 6)], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("ConvTranspose", [f(1, 2, 4, 4), f(2, 3, 2, 2)], {"strides": [2, 2]}),
        ("Gemm", [f(3, 4), f(4, 5), f(5)], {"alpha": 0.5}),
        ("GatherND", [f(3, 4), i(0, 1).reshape(1, 2)], {}),
        ("ScatterElements", [f(3, 4), i(0, 1).reshape(1, 2), f(1, 2)], {"axis": 1}),
        ("Slice", [f(5, 5), i(0), i(4), i(1), i(2)], {}),
        ("Pad", [f(2, 3), i(0, 1, 1, 0)], {}),
        ("Resize", [f(1, 1, 4, 4), f(0), np.array([1, 1, 2, 2], np.float32)], {"mode": "nearest"}),
        ("Tile", [f(2, 3), i(2, 2)], {}),
        ("Expand", [f(1, 3), i(4, 3)], {}),
        ("ConstantOfShape", [i(2, 3)], {}),
        ("Range", [np.array(0), np.array(9), np.array(2)], {}),
        ("OneHot", [i(1, 2), np.array(4), f(2)], {}),
        ("Split", [f(6, 2), i(2, 4)], {}),
        ("TopK", [f(4, 5), i(2)], {}),
        ("CumSum", [f(3, 4), np.array(1)], {}),
        ("LSTM", [f(2, 1, 3), f(1, 8, 3), f(1, 8, 2)], {"hidden_size": 2}),
        ("Einsum", [f(2, 3), f(3, 4)], {"equation": "ij,jk->ik"}),
        ("HannWindow", [np.array(8)], {}),
        ("DequantizeLinear", [codes[0], f(1).reshape(())], {}),
        ("DynamicQuantizeLinear", [f(4, 4)], {}),
        ("ReduceMean", [f(3, 4), i(1)], {}),
        ("Attention", [f(1, 2, 3, 4), f(1, 2, 3, 4), f(1, 2, 3, 4)], {"is_causal": 1}),
        (
            "GroupQueryAttention",
            [
                qkv,
                f(1, 3, 16),
                f(1, 3, 16),
                cache,
                cache,
                np.array([6], np.int32),
                np.array(7, np.int32),
                tables,
                tables,
            ],
            {"num_heads": 2, "kv_num_heads": 1, "do_rotary": 1},
        ),
        ("MultiHeadAttention", [qkv, qkv, qkv, f(96)], {"num_heads": 2}),
        ("MatMulNBits", [f(2, 64), codes, f(6, 2)], {"K": 64, "N": 6, "bits": 4, "block_size": 32}),
        ("GatherBlockQuantized", [codes[0], i(0, 1), f(2, 1)], {"block_size": 32, "bits": 4}),
        ("SkipSimplifiedLayerNormalization", [f(2, 8), f(2, 8), f(8)], {}),
        ("RotaryEmbedding", [qkv, i(0, 1, 2).reshape(1, 3), tables, tables], {}),
        ("EmbedLayerNormalization", [np.zeros((1, 2), np.int32), None, f(9, 4), f(9, 4), None, f(4), f(4)], {}),
        ("DynamicQuantizeMatMul", [f(2, 16), codes[0].T.copy(), f(2)], {}),
    ]
    nodes, weights = [], []
    for n, (op, inputs, attributes) in enumerate(rows):
        names = ["" if x is None else f"{op}_{k}" for k, x in enumerate(inputs)]
        weights += [numpy_helper.from_array(x, name) for x, name in zip(inputs, names, strict=True) if x is not None]
        domain = MS if ((MS, op) in TABLE and ("", op) not in TABLE) or op == "RotaryEmbedding" else ""
        nodes.append(helper.make_node(op, names, [f"y{n}"], name=f"n{n}", domain=domain, **attributes))
    outputs = [onnx.ValueInfoProto(name=f"y{n}") for n in range(len(rows))]
    graph = helper.make_graph(nodes, "sampler", [], outputs, weights)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


LOOPS = """<ir_version: 8, opset_import: ["" : 21, "local" : 1]>
g (float[n] x, int64 k) => (float[n] y, float[m] all, float[n] z)
{
    go = Constant <value = bool {1}> ()
    y, all = Loop (k, go, x) <body = b (int64 i, bool c, float[n] v) => (bool d, float[n] w, float s) {
        d = Identity (c)
        w = local.twice <by = 2.0> (v)
        s = ReduceSum <keepdims = 0> (v)
    }>
    cond = Greater (k, k)
    z = If (cond) < then_branch = t () => (float[n] p) { p = Neg (x) },
                    else_branch = e () => (float[n] q) { q = Exp (y) } >
}
<domain: "local", opset_import: ["" : 21]>
twice <by>(x) => (y) { a = Constant <value_float: float = @by> () y = Mul (x, a) }
"""


def bases() -> list[onnx.ModelProto]:
    bert = bert_graph(tiny_weights(20, 8, 16, 1, 8), 1, 2)
    many = sampler()
    singles = []
    for n, node in enumerate(many.graph.node):
        single = onnx.ModelProto()
        single.CopyFrom(many)
        del single.graph.node[:]
        single.graph.node.append(node)
        used = set(node.input)
        kept = [w for w in many.graph.initializer if w.name in used]
        del single.graph.initializer[:]
        single.graph.initializer.extend(kept)
        del single.graph.output[:]
        single.graph.output.append(onnx.ValueInfoProto(name=f"y{n}"))
        singles.append(single)
    return [bert, odd_decoder(), parser.parse_model(LOOPS), *singles]


def mutate(model: onnx.ModelProto, rng: random.Random) -> None:
    """One change to a message: what a careless or a hostile exporter might write."""
    graph = model.graph
    node = rng.choice(graph.node)
    kind = rng.randrange(9)
    if kind == 0 and node.attribute:
        attribute = rng.choice(node.attribute)
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
        else:
            attribute.i, attribute.f = rng.choice(NUMBERS), rng.choice([0.0, -1.0, 1e38, float("nan"), float("inf")])
    elif kind == 1 and node.input:
        names = [i for n in graph.node for i in n.input] + [w.name for w in graph.initializer] + [""]
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif kind == 2 and node.input:
        del node.input[rng.randrange(len(node.input))]
    elif kind == 3:
        node.domain, node.op_type = rng.choice(sorted(TABLE))
    elif kind == 4 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind in "iuf":
            flat = array.reshape(-1).copy()
            if flat.size:
                number = rng.choice(NUMBERS)
                flat[rng.randrange(flat.size)] = np.array(number).astype(flat.dtype)
            tensor.CopyFrom(numpy_helper.from_array(flat.reshape(array.shape), tensor.name))
    elif kind == 5 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        array = numpy_helper.to_array(tensor)
        shape = rng.choice([(-1,), (1, *array.shape), (array.size, 1), (1, array.size), ()])
        if shape or array.size == 1:
            tensor.CopyFrom(numpy_helper.from_array(array.reshape(shape), tensor.name))
    elif kind == 6 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        types = [np.float32, np.float16, np.float64, np.int64, np.int32, np.uint8, np.int8, np.bool_]
        array = numpy_helper.to_array(tensor).astype(rng.choice(types))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    elif kind == 7:
        model.opset_import[0].version = rng.choice([1, 6, 7, 11, 13, 18, 21, 23, 24, 26, 99])
    else:
        tensor = rng.choice(graph.initializer) if graph.initializer else None
        if tensor is not None:
            empty = rng.choice([(0,), (0, 3), (3, 0)])
            tensor.CopyFrom(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=empty))


def feeds_for(session: Session, rng: random.Random) -> dict[str, np.ndarray]:
    kinds = {"FLOAT": np.float32, "INT64": np.int64}
    sizes = {"b": 1, "s": 2, "p": 1, "t": 3, "batch": 2, "sequence": 3, "n": 4}
    out = {}
    for v in session.inputs:
        shape = [n if isinstance(n, int) else sizes.get(str(n), 2) for n in v.shape or ()]
        value = np.ones(shape) if rng.random() < 0.9 else np.full(shape, rng.choice([-1, 100, 1 << 40]))
        out[v.name] = value.astype(kinds.get(v.dtype, np.float32))
    return out


def attempt(seed: int, models: list[onnx.ModelProto]) -> str:
    """Run one damaged graph; says how it went."""
    rng = random.Random(seed)
    model = onnx.ModelProto()
    model.CopyFrom(models[seed % len(models)])
    for _ in range(rng.choice([1, 1, 2, 4])):
        mutate(model, rng)
    data = bytearray(model.SerializeToString())
    if rng.random() < 0.15:
        for _ in range(rng.choice([1, 3])):
            data[rng.randrange(len(data))] = rng.randrange(256)
    started = time.process_time()
    try:
        with limited_to(LARGEST):
            session = Session(read_onnx(bytes(data)))
            session.run(feeds_for(session, rng))
        outcome = "ran"
    except (LoadError, UsageError) as e:
        outcome = "refused" if str(e) and "\n" not in str(e) else f"unclear: {e!r}"
    assert time.process_time() - started < SECONDS, seed
    return outcome


@pytest.mark.filterwarnings("ignore")  # numpy's, of damaged numbers
def test_damaged_graphs(monkeypatch):
    models = bases()
    monkeypatch.setattr("ternrun.onnx.runtime.session.MAX_STEPS", 20_000)
    outcomes = [attempt(seed, models) for seed in (*range(400), *FOUND)]
    assert set(outcomes) == {"ran", "refused"}
    assert 50 < outcomes.count("ran") < 350


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    count, all_models = int(sys.argv[1]), bases()
    told: dict[str, int] = {}
    slowest = (0.0, 0)
    for number in range(1000, 1000 + count):
        begun = time.monotonic()
        try:
            how = attempt(number, all_models)
        except Exception as error:
            print(number, type(error).__name__, str(error)[:300], flush=True)
            how = "fault"
        told[how] = told.get(how, 0) + 1
        slowest = max(slowest, (time.monotonic() - begun, number))
    print(told, "slowest", slowest)
