"""Graphs as exporters really write them (tests/oracle/onnx_tiny.py): recognized, with the model's own logits."""

import lzma
from pathlib import Path

import numpy as np
import onnx
import pytest

from ternrun.loader.onnx.recognize import recognize
from ternrun.onnx.format.reader import read_onnx
from ternrun.onnx.recognition.trace import UnrecognizedError
from tests.reference import dense, forward

DATA = Path(__file__).parents[1] / "data" / "onnx"
FILES = sorted(p.name.removesuffix(".onnx.xz") for p in DATA.glob("*.xz"))
CLOSE = {"fp16": 2e-3, "bf16": 2e-2, "int4": 1.0}  # of the logits' range; else 1e-5. int4: see below


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    return dict(np.load(DATA / "logits.npz"))


def test_all_routes_are_here() -> None:
    assert len(FILES) == 15


@pytest.mark.parametrize("name", FILES)
def test_exported_decoders_are_recognized(name: str, truth: dict[str, np.ndarray]) -> None:
    model = read_onnx(lzma.decompress((DATA / f"{name}.onnx.xz").read_bytes()))
    found = recognize(model, context=128)
    wanted = truth[name.split("-")[0]]
    given = forward(found.weights, truth["ids"], kv="f32")
    close = CLOSE.get(name.rpartition("-")[2], 1e-5)
    np.testing.assert_allclose(given, wanted, atol=close * np.ptp(wanted))
    if close <= 2e-3:
        assert (given.argmax(1) == wanted.argmax(1)).all()
    config = found.weights.config
    assert (config.n_layers, config.n_heads, config.n_kv_heads, config.context_length) == (2, 4, 2, 128)
    assert config.norm_eps == 1e-5
    tied = "output.weight" not in found.weights.tensors
    assert tied == (name.split("-")[0] in ("llama", "qwen2"))


def test_the_architecture_is_one_that_gguf_has() -> None:
    for name, architecture in (("llama-optimum", "llama"), ("qwen3-genai", "qwen3"), ("qwen2-genai", "llama")):
        model = read_onnx(lzma.decompress((DATA / f"{name}.onnx.xz").read_bytes()))
        assert recognize(model).weights.config.architecture == architecture


def test_llama3_scaling_is_read_from_the_angles() -> None:
    model = read_onnx(lzma.decompress((DATA / "llama3-genai.onnx.xz").read_bytes()))
    rope = recognize(model).weights.config.rope
    plain = 500000.0 ** -(np.arange(4) / 4)
    smooth = np.clip((64 * plain / (2 * np.pi) - 1) / 3, 0, 1)  # factor 8 of 64 tokens, from 1 to 4 turns
    wanted = plain * ((1 - smooth) / 8 + smooth)
    found = rope.base ** -(np.arange(4) / 4) / np.array(rope.frequency_factors)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_four_bit_weights_are_the_files() -> None:
    """Worked out by hand: low nibble first, zero point 8; this graph's heads are too narrow for onnxruntime."""
    model = read_onnx(lzma.decompress((DATA / "llama-genai-int4.onnx.xz").read_bytes()))
    found = recognize(model).weights.tensors
    for n, part in ((0, "gate"), (1, "up")):
        raw = model.graph.initializers[f"model.layers.{n}.mlp.{part}_proj.MatMul.weight_Q4"].array()
        scale = model.graph.initializers[f"model.layers.{n}.mlp.{part}_proj.MatMul.weight_scales"].array()
        codes = np.stack([raw & 15, raw >> 4], axis=-1).reshape(64, 32).astype(np.float32) - 8
        wanted = codes * scale.reshape(64, 1)
        np.testing.assert_allclose(dense(found[f"blk.{n}.ffn_{part}.weight"]), wanted, rtol=1e-3)  # its scales are fp16


def test_a_window_that_does_not_show_is_refused() -> None:
    model = onnx.ModelProto.FromString(lzma.decompress((DATA / "llama-optimum.onnx.xz").read_bytes()))
    nodes = model.graph.node
    at, causal = next((i, n) for i, n in enumerate(nodes) if n.op_type == "LessOrEqual")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64(512), "window"))
    for n in nodes:
        n.input[:] = ["both" if x == causal.output[0] else x for x in n.input]
    nodes.insert(at + 1, onnx.helper.make_node("And", [causal.output[0], "near"], ["both"]))
    nodes.insert(at + 1, onnx.helper.make_node("Greater", [causal.input[0], "from"], ["near"]))
    nodes.insert(at + 1, onnx.helper.make_node("Sub", [causal.input[1], "window"], ["from"]))
    with pytest.raises(UnrecognizedError, match="perhaps a sliding window"):
        recognize(read_onnx(model.SerializeToString()))
