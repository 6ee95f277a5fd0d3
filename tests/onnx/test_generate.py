"""An unknown decoder behind the engine, beside onnxruntime's own greedy loop over the same graph."""

import json
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper, parser

from ternrun import LoadError, UsageError, cli, load
from ternrun.loader.convert import convert
from ternrun.onnx.format.reader import read_onnx
from ternrun.onnx.runtime.graph_decoder import GraphDecoder
from ternrun.onnx.runtime.graph_model import GraphModel
from ternrun.runtime.backend.protocol import Batch
from ternrun.runtime.config import EngineConfig, SamplingParams
from ternrun.runtime.engine.engine import Engine
from ternrun.runtime.engine.request import Request
from ternrun.runtime.ngram_proposer import NgramProposer
from tests.onnx.bert import tiny_folder

VOCAB, HEADS, WIDTH = 60, 2, 8
# nobody's architecture: keys are squashed, distances decay, the attention has no output matrix
GRAPH = """<ir_version: 8, opset_import: ["" : 17]>
odd (int64[b, s] input_ids, int64[b, t] attention_mask, int64[b, s] position_ids,
     float[b, 2, p, 8] past_0_key, float[b, 2, p, 8] past_0_value)
 => (float[b, s, 60] logits, float[b, 2, t, 8] present_0_key, float[b, 2, t, 8] present_0_value)
<float[1] decay = {0.3}, float[1] low = {-10000.0}, float[1] one = {1.0}, int64[4] split = {0, 0, 2, 8},
 int64[3] merge = {0, 0, 16}, int64[2] mid = {1, 2}, int64[1] first = {1}, int64[1] last = {2}>
{
    x = Gather (table, input_ids)
    q1 = MatMul (x, wq) q2 = Reshape (q1, split) q = Transpose <perm = [0, 2, 1, 3]> (q2)
    k1 = MatMul (x, wk) k2 = Tanh (k1) k3 = Reshape (k2, split) k4 = Transpose <perm = [0, 2, 1, 3]> (k3)
    v1 = MatMul (x, wv) v2 = Reshape (v1, split) v3 = Transpose <perm = [0, 2, 1, 3]> (v2)
    present_0_key = Concat <axis = 2> (past_0_key, k4)
    present_0_value = Concat <axis = 2> (past_0_value, v3)
    kt = Transpose <perm = [0, 1, 3, 2]> (present_0_key)
    scores = MatMul (q, kt)
    m1 = Cast <to = 1> (attention_mask) ones = CumSum (m1, last_axis) keys0 = Sub (ones, one)
    keys1 = Unsqueeze (keys0, first) keys = Unsqueeze (keys1, first)
    p1 = Cast <to = 1> (position_ids) p2 = Unsqueeze (p1, first) p3 = Unsqueeze (p2, tail)
    behind = Sub (p3, keys)
    far = Mul (behind, decay) near = Neg (far)
    future = Less (behind, zero) bias = Where (future, low, near)
    biased = Add (scores, bias)
    weights = Softmax <axis = -1> (biased)
    o1 = MatMul (weights, present_0_value) o2 = Transpose <perm = [0, 2, 1, 3]> (o1) o3 = Reshape (o2, merge)
    h = Add (x, o3)
    logits = MatMul (h, head)
}"""


def odd_decoder() -> onnx.ModelProto:
    model = parser.parse_model(GRAPH)
    rng = np.random.default_rng(4)
    shapes = {"table": (VOCAB, 16), "wq": (16, 16), "wk": (16, 16), "wv": (16, 16), "head": (16, VOCAB)}
    for name, shape in shapes.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    numbers = {"last_axis": np.array(1), "tail": np.array([3]), "zero": np.zeros(1, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in numbers.items())
    return model


def graph_model(**options: int) -> GraphModel:
    decoder = GraphDecoder(read_onnx(odd_decoder().SerializeToString()), context=256)
    return GraphModel(decoder, EngineConfig(**options))


def by_onnxruntime(prompt: list[int], count: int) -> tuple[list[int], np.ndarray]:
    """Greedy tokens, and the logits of the whole prompt."""
    session = onnxruntime.InferenceSession(odd_decoder().SerializeToString(), providers=["CPUExecutionProvider"])
    caches = [np.zeros((1, HEADS, 0, WIDTH), np.float32)] * 2
    out, fed, start, all_logits = [], prompt, 0, None
    for _ in range(count):
        end = start + len(fed)
        feeds = {"input_ids": np.array([fed]), "attention_mask": np.ones((1, end), np.int64)}
        feeds |= {"position_ids": np.arange(start, end)[None]}
        feeds |= dict(zip(("past_0_key", "past_0_value"), caches, strict=True))
        logits, *caches = session.run(None, feeds)
        all_logits = logits[0] if all_logits is None else all_logits
        out.append(int(logits[0, -1].argmax()))
        fed, start = out[-1:], end
    return out, all_logits


PROMPTS = [[1, 2, 3], [4] * 40, [1, 2, 3, 9, 8, 7, 1, 2, 3], list(range(35))]


@pytest.mark.parametrize("drafter", [None, partial(NgramProposer, 3)])
@pytest.mark.parametrize("chunk", [3, 128])
def test_batches_of_sequences_are_onnxruntimes(drafter, chunk):
    engine = Engine(graph_model(prefill_chunk=chunk), drafter=drafter)
    got = {engine.add(Request(p, SamplingParams(max_tokens=24))): p for p in PROMPTS}
    tokens: dict[int, list[int]] = {i: [] for i in got}
    while engine.has_work:
        for output in engine.step():
            tokens[output.id] += output.tokens
    for i, prompt in got.items():
        assert tokens[i] == by_onnxruntime(prompt, 24)[0]


def test_a_prefix_is_found_again_and_preemption_changes_nothing():
    prompt = [7, *range(40)]
    engine = Engine(graph_model(kv_tokens=80, context=80, max_batch=3))
    for _ in range(2):  # the second time the blocks of the first are found
        ids = [engine.add(Request([*prompt, i], SamplingParams(max_tokens=20))) for i in range(3)]
        tokens: dict[int, list[int]] = {i: [] for i in ids}
        while engine.has_work:
            for output in engine.step():
                tokens[output.id] += output.tokens
        for i, request in enumerate(ids):
            assert tokens[request] == by_onnxruntime([*prompt, i], 20)[0]


def test_logits_of_a_batch():
    model = graph_model()
    outputs = [1, 2, 3, 11]
    batch = Batch(
        [*PROMPTS[0], *PROMPTS[2]], [*range(3), *range(9)], [0] * 3 + [1] * 9,
        list(np.array([[0, 0], [1, 0]], np.int32)), outputs,
    )  # fmt: skip
    logits = model.forward(batch)
    expected = np.concatenate([by_onnxruntime(PROMPTS[i], 1)[1] for i in (0, 2)])[outputs]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert model.config.vocab_size == VOCAB
    with pytest.raises(UsageError, match="logits only"):
        model.embed(batch)


def changed(change) -> onnx.ModelProto:
    model = odd_decoder()
    change(model.graph)
    return model


def drop(graph: onnx.GraphProto, kind: str, name: str) -> None:
    field = getattr(graph, kind)
    field.remove(next(v for v in field if v.name == name))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda g: drop(g, "output", "logits"), "returns no logits"),
        (lambda g: drop(g, "output", "present_0_key"), "takes 'past_0_key', but returns nothing"),
        (lambda g: g.input.append(helper.make_tensor_value_info("pixels", 1, [1])), "takes pixels: it is not a known"),
        (lambda g: g.input[3].type.tensor_type.shape.dim[1].ClearField("dim_value"), "which is not supported"),
    ],
)  # fmt: skip
def test_graphs_that_are_no_decoders(change, fault):
    with pytest.raises(LoadError, match=fault):
        GraphDecoder(read_onnx(changed(change).SerializeToString()))


def test_a_graph_that_takes_several_tokens_only_at_the_beginning():
    """Its mask is made for a prompt alone: a token after others may see them all."""
    model = odd_decoder()
    for node in model.graph.node:
        if node.output[0] == "behind":  # counts rows as if no token came before
            node.input[0] = "rows"
    count = [
        helper.make_node("Shape", ["input_ids"], ["s"], start=1, end=2),
        helper.make_node("Shape", ["past_0_key"], ["p"], start=2, end=3),
        helper.make_node("Squeeze", ["s"], ["s0"]),
        helper.make_node("Equal", ["s0", "int_one"], ["single"]),
        helper.make_node("Range", ["int_zero", "s0", "int_one"], ["r0"]),
        helper.make_node("Where", ["single", "p", "r0"], ["r1"]),
        helper.make_node("Cast", ["r1"], ["r2"], to=1),
        helper.make_node("Reshape", ["r2", "column"], ["rows"]),
    ]
    for node in reversed(count):
        model.graph.node.insert(0, node)
    constants = {"int_one": np.array(1), "int_zero": np.array(0), "column": np.array([1, 1, -1, 1])}
    model.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in constants.items())
    decoder = GraphDecoder(read_onnx(model.SerializeToString()), context=256)
    assert [len(decoder.portions(np.arange(5), start)) for start in (0, 3)] == [1, 5]
    graph = GraphModel(decoder, EngineConfig(prefill_chunk=4))
    engine = Engine(graph)
    engine.add(Request(PROMPTS[2], SamplingParams(max_tokens=12)))
    tokens: list[int] = []
    while engine.has_work:
        for output in engine.step():
            tokens += output.tokens
    assert tokens == by_onnxruntime(PROMPTS[2], 12)[0]


def test_from_a_folder_to_text(tmp_path, capsys):
    folder = tiny_folder(tmp_path / "odd")
    for name in ("modules.json", "model.onnx"):
        (folder / name).unlink()
    onnx.save(odd_decoder(), folder / "model.onnx")
    with load(folder) as model:
        assert model.complete([1, 2, 3], max_tokens=24, ignore_eos=True).ids == by_onnxruntime([1, 2, 3], 24)[0]
        assert model.backend == "onnx/numpy"
        assert "run operator by operator, because" in model.backend_reason
        assert model.context == 64
    with pytest.raises(UsageError, match="none that a GGUF file can state"):
        convert(folder, tmp_path / "out.gguf", "f16")
    assert cli.main(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] > 1000
    (folder / "model.onnx").write_bytes(changed(lambda g: drop(g, "output", "logits")).SerializeToString())
    with pytest.raises(LoadError, match=r"that ternrun recognizes: .*; nor can it be run as it is: .*no logits"):
        load(folder)
