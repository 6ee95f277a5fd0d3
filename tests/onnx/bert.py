"""BERT as a graph, out of its weights by their Hugging Face names: in the operators that torch's exporter writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def bert_graph(weights: Mapping[str, np.ndarray], layers: int, heads: int, eps: float = 1e-12) -> onnx.ModelProto:
    """last_hidden_state (B, T, D) of the three usual inputs (B, T)."""
    graph = _Graph(weights)
    node, weight = graph.node, graph.weight
    dim = weights["embeddings.word_embeddings.weight"].shape[1]
    e = "embeddings"
    length = node("Shape", "input_ids", start=1, end=2)
    rows = node("Slice", weight(f"{e}.position_embeddings.weight"), graph.ints(0), length, graph.ints(0))
    x = node("Gather", weight(f"{e}.word_embeddings.weight"), "input_ids")
    x = node("Add", x, node("Gather", weight(f"{e}.token_type_embeddings.weight"), "token_type_ids"))
    x = graph.norm(node("Add", x, rows), f"{e}.LayerNorm", eps)
    mask = node("Cast", node("Unsqueeze", "attention_mask", graph.ints(1, 2)), to=TensorProto.FLOAT)
    mask = node("Mul", node("Sub", graph.number(1), mask), graph.number(np.finfo(np.float32).min))
    for i in range(layers):
        p = f"encoder.layer.{i}"
        split, merge = graph.ints(0, 0, heads, dim // heads), graph.ints(0, 0, dim)
        q, k, v = (
            node("Transpose", node("Reshape", graph.linear(x, f"{p}.attention.self.{w}"), split), perm=perm)
            for w, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )
        scores = node("Div", node("MatMul", q, k), graph.number((dim / heads) ** 0.5))
        out = node("MatMul", node("Softmax", node("Add", scores, mask), axis=-1), v)
        out = node("Reshape", node("Transpose", out, perm=[0, 2, 1, 3]), merge)
        x = node("Add", graph.linear(out, f"{p}.attention.output.dense"), x)
        x = graph.norm(x, f"{p}.attention.output.LayerNorm", eps)
        inner = graph.linear(x, f"{p}.intermediate.dense")
        erf = node("Add", node("Erf", node("Div", inner, graph.number(2**0.5))), graph.number(1))
        gelu = node("Mul", node("Mul", inner, erf), graph.number(0.5))
        x = graph.norm(node("Add", graph.linear(gelu, f"{p}.output.dense"), x), f"{p}.output.LayerNorm", eps)
    return graph.model(x, dim)


class _Graph:
    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._weights, self._nodes, self._constants = weights, [], {}

    def node(self, op: str, *inputs: str, **attributes) -> str:
        name = f"{op}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def weight(self, name: str, transpose: bool = False) -> str:
        array = self._weights[name]
        return self._constant(name, np.ascontiguousarray(array.T) if transpose else array)

    def ints(self, *values: int) -> str:
        return self._constant(f"ints {values}", np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self._constant(f"number {value}", np.array(value, np.float32))

    def linear(self, x: str, name: str) -> str:
        return self.node(
            "Add", self.node("MatMul", x, self.weight(f"{name}.weight", True)), self.weight(f"{name}.bias")
        )

    def norm(self, x: str, name: str, eps: float) -> str:
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=eps)

    def model(self, output: str, dim: int) -> onnx.ModelProto:
        self._nodes.append(helper.make_node("Identity", [output], ["last_hidden_state"]))
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "sequence"]) for n in INPUTS]
        shape = ["batch", "sequence", dim]
        outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self._nodes, "bert", inputs, outputs, list(self._constants.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def _constant(self, name: str, array: np.ndarray) -> str:
        self._constants.setdefault(name, numpy_helper.from_array(array, name))
        return name


def tiny_weights(vocab: int, dim: int, ffn: int, layers: int, positions: int = 64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    out = {
        "embeddings.word_embeddings.weight": normal(vocab, dim),
        "embeddings.position_embeddings.weight": normal(positions, dim),
        "embeddings.token_type_embeddings.weight": normal(2, dim),
    }
    names = ["embeddings.LayerNorm"]
    for i in range(layers):
        p = f"encoder.layer.{i}"
        linears = {f"attention.self.{w}": (dim, dim) for w in ("query", "key", "value")}
        linears |= {"attention.output.dense": (dim, dim), "intermediate.dense": (ffn, dim), "output.dense": (dim, ffn)}
        for name, shape in linears.items():
            out |= {f"{p}.{name}.weight": normal(*shape), f"{p}.{name}.bias": normal(shape[0])}
        names += [f"{p}.attention.output.LayerNorm", f"{p}.output.LayerNorm"]
    for name in names:
        out |= {f"{name}.weight": 1 + normal(dim), f"{name}.bias": normal(dim)}
    return out


def tiny_folder(folder: Path, pooling: str = "pooling_mode_mean_tokens", normalize: bool = True, **config: int) -> Path:
    """A sentence-transformers folder with a random model that knows the letters."""
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters)]
    model = bert_graph(tiny_weights(len(vocab), 16, 32, 2), 2, 4)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    plain = dict.fromkeys(("normalized", "single_word", "lstrip", "rstrip"), False)
    special = [{"id": i, "content": vocab[i], "special": True, **plain} for i in range(4)]
    frame = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
             {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]  # fmt: skip
    ids = {t: {"id": t, "ids": [vocab.index(t)], "tokens": [t]} for t in ("[CLS]", "[SEP]")}
    files = {
        "tokenizer.json": {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
            "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                           "strip_accents": None, "lowercase": True},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "TemplateProcessing", "single": frame, "pair": frame, "special_tokens": ids},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": {t: i for i, t in enumerate(vocab)}},
        },
        "modules.json": [
            {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            *([{"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}] * normalize),
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": 16, pooling: True},
        "config.json": {"max_position_embeddings": 64, **config},
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder
