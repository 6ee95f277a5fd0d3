"""Damaged graphs end in one clear sentence, or are decoders still: bytes, nodes, shapes, types, attributes, weights.

python -m tests.onnx.test_fuzz 3000 [SEED]     more of the same
"""

import lzma
import sys
import time
import warnings
from functools import cache
from pathlib import Path
from random import Random

import onnx
import pytest

from ternrun.errors import LoadError
from ternrun.loader.onnx.recognize import recognize
from ternrun.onnx.format.reader import read_onnx
from tests.fuzz.mutate import EDGES, mutate

DATA = Path(__file__).parents[1] / "data" / "onnx"
NAMES = ("llama-genai-int4", "llama-genai-fp32", "qwen3-genai", "llama-optimum", "llama-torch-opset23")
SLOWEST = 5.0  # seconds of computing: far above any


@cache
def sample(name: str) -> bytes:
    return lzma.decompress((DATA / f"{name}.onnx.xz").read_bytes())


def damage(data: bytes, rng: Random) -> bytes:
    """Bytes changed anywhere, or the graph changed in one to three places."""
    if rng.random() < 0.4:
        return mutate(data, rng)
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice((rewire, rename, retype, reshape, lie, drop, repeat, turn, outside, nest))(model, rng)
    return model.SerializeToString()


def number(rng: Random) -> int:
    return (rng.choice(EDGES) * rng.choice((1, 1, -1)) + 2**63) % 2**64 - 2**63


def node(model: onnx.ModelProto, rng: Random) -> onnx.NodeProto:
    return rng.choice(model.graph.node) if model.graph.node else model.graph.node.add()


def tensor(model: onnx.ModelProto, rng: Random) -> onnx.TensorProto:
    return rng.choice(model.graph.initializer)


def rewire(model: onnx.ModelProto, rng: Random) -> None:
    """An input of another node's output, perhaps a later one: circles and shapes that do not fit."""
    one, other = node(model, rng), node(model, rng)
    if one.input and other.output:
        one.input[rng.randrange(len(one.input))] = other.output[0]


def rename(model: onnx.ModelProto, rng: Random) -> None:
    one = node(model, rng)
    one.op_type = rng.choice((node(model, rng).op_type, "Nothing", "Range", "Expand", "Loop", "If", "Tile"))


def retype(model: onnx.ModelProto, rng: Random) -> None:
    tensor(model, rng).data_type = rng.randrange(-1, 30)


def reshape(model: onnx.ModelProto, rng: Random) -> None:
    dims = tensor(model, rng).dims
    if rng.random() < 0.5 and len(dims) > 1:
        dims[:] = list(dims)[::-1]
    elif dims:
        dims[rng.randrange(len(dims))] = number(rng)


def lie(model: onnx.ModelProto, rng: Random) -> None:
    attributes = node(model, rng).attribute
    if attributes:
        one = rng.choice(attributes)
        one.i, one.f = number(rng), rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e30))
        if one.ints:
            one.ints[rng.randrange(len(one.ints))] = number(rng)


def drop(model: onnx.ModelProto, rng: Random) -> None:
    del model.graph.node[rng.randrange(len(model.graph.node))]


def repeat(model: onnx.ModelProto, rng: Random) -> None:
    model.graph.node.insert(rng.randrange(len(model.graph.node)), node(model, rng))


def turn(model: onnx.ModelProto, rng: Random) -> None:
    """Numbers of a tensor changed: shapes, axes, scales, zero points, weights that are not finite."""
    one = tensor(model, rng)
    one.raw_data = mutate(one.raw_data, rng)[: len(one.raw_data)].ljust(len(one.raw_data), b"\xff")


def outside(model: onnx.ModelProto, rng: Random) -> None:
    one = tensor(model, rng)
    one.ClearField("raw_data")
    one.data_location = onnx.TensorProto.EXTERNAL
    places = ("../../etc/passwd", "/etc/passwd", "x", "\0", "a" * 5000)
    one.external_data.add(key="location", value=rng.choice(places))
    one.external_data.add(key="length", value=str(number(rng)))


def nest(model: onnx.ModelProto, rng: Random) -> None:
    """A function that calls itself, or the graph inside itself."""
    one = node(model, rng)
    if rng.random() < 0.5:
        body = onnx.helper.make_node(one.op_type, ["a"], ["b"], domain=one.domain)
        ops = [onnx.helper.make_opsetid("", 18)]
        model.functions.append(onnx.helper.make_function(one.domain, one.op_type, ["a"], ["b"], [body], ops))
    else:
        one.attribute.append(onnx.helper.make_attribute("then_branch", model.graph))


def outcome(data: bytes) -> str:
    """'decoder', or the refusal, which must be one sentence and come soon."""
    start = time.process_time()
    try:
        recognize(read_onnx(data))
        answer = "decoder"
    except LoadError as e:
        answer = str(e)
        assert answer, "an empty message"
        assert "\n" not in answer, answer
        assert len(answer) < 1000, answer
    assert time.process_time() - start < SLOWEST
    return answer


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_refused_or_does_no_harm(name: str) -> None:
    rng = Random(6)
    found = {outcome(damage(sample(name), rng)) for _ in range(60)}
    assert len(found) > 10
    assert "decoder" in found  # some damage changes nothing that matters


if __name__ == "__main__":
    warnings.simplefilter("error")
    count, rng = int(sys.argv[1]), Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    decoders, slowest = 0, 0.0
    for i in range(count):
        data = damage(sample(NAMES[i % len(NAMES)]), rng)
        begun = time.process_time()
        try:
            decoders += outcome(data) == "decoder"
        except BaseException:
            Path("fuzz-onnx-case.onnx").write_bytes(data)
            raise
        slowest = max(slowest, time.process_time() - begun)
    print(f"{count} damaged graphs: {count - decoders} refused, {decoders} still decoders, slowest {slowest:.2f} s")
