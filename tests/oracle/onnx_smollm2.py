"""SmolLM2's weights as ONNX by several exporters: ternrun's logits and speed on them beside onnxruntime's.

python -m tests.oracle.onnx_smollm2 folder OUT             SmolLM2 as a Hugging Face folder, from the GGUF's weights
python -m tests.oracle.onnx_smollm2 export OUT ROUTE...    torch, fp32, fp16, int4 (needs what onnx_tiny.py needs)
python -m tests.oracle.onnx_smollm2 compare FILE           teacher-forced argmax of both, in percent
python -m tests.oracle.onnx_smollm2 speed FILE             decoded tokens a second of both, in turns
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from ternrun.loader.model import open_model
from ternrun.loader.quants import decode
from tests.fakes_hf import hf_name, write_safetensors
from tests.smollm2 import smollm2

TEXTS = (
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n",
    "The history of the steam engine begins long before the industrial revolution. In the first century, Hero of "
    "Alexandria described a device that turned when water in it was heated, and nobody put it to use for",
    "Water boils at 100 degrees Celsius at sea level. At higher altitudes the pressure is lower, and so",
)


def folder(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with open_model(smollm2()) as model:
        config, stored = model.weights.config, {}
        for name, tensor in model.weights.tensors.items():
            values = decode(tensor.type, tensor.data, tensor.shape)
            if "attn_q." in name or "attn_k." in name:  # GGUF's llama rotates neighbours, Hugging Face's halves
                pairs = values.reshape(-1, config.head_dim // 2, 2, values.shape[1])
                values = pairs.swapaxes(1, 2).reshape(values.shape)
            stored[hf_name(name, "llama")] = ("F32", values.shape, np.ascontiguousarray(values).tobytes())
    write_safetensors(out / "model.safetensors", stored)
    c = config
    table = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": c.dim, "vocab_size": c.vocab_size,
        "num_hidden_layers": c.n_layers, "num_attention_heads": c.n_heads, "num_key_value_heads": c.n_kv_heads,
        "head_dim": c.head_dim, "intermediate_size": c.ffn_dim, "rms_norm_eps": c.norm_eps, "rope_theta": c.rope.base,
        "hidden_act": "silu", "tie_word_embeddings": True, "max_position_embeddings": c.context_length,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
    }  # fmt: skip
    (out / "config.json").write_text(json.dumps(table))


def export(out: Path, routes: list[str]) -> None:
    from tests.oracle.onnx_tiny import by_genai, by_torch

    for route in routes:
        target = out.with_name(f"{out.name}-{route}.onnx")
        if route == "torch":
            by_torch(out, target, "sdpa", True, 18)
        else:
            by_genai(out, target, route, "cpu")
        print(target)


class Reference:
    """The graph in onnxruntime on two threads, its cache kept here."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.past: dict[str, np.ndarray] = {}
        self.at = 0

    def run(self, ids: list[int]) -> np.ndarray:
        total = self.at + len(ids)
        feed: dict[str, np.ndarray] = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, total), np.int64)}
        if "position_ids" in self.inputs:
            feed["position_ids"] = np.arange(self.at, total)[None]
        for name, value in self.inputs.items():
            if name.startswith("past_"):
                kind = np.float16 if "float16" in value.type else np.float32
                heads, width = value.shape[1], value.shape[3] if isinstance(value.shape[3], int) else 64
                feed[name] = self.past.get(name, np.zeros((1, heads, 0, width), kind))
        logits, *present = self.session.run(None, feed)
        names = [o.name.replace("present", "past_key_values") for o in self.session.get_outputs()[1:]]
        self.past = dict(zip(names, present, strict=True))
        self.at = total
        return logits[0].astype(np.float32)


def _ours(path: Path):
    from ternrun.runtime.config import EngineConfig
    from ternrun.runtime.cpu.model import CpuModel

    model = open_model(path)
    return CpuModel(model.weights, EngineConfig(threads=2, context=1024))


def _step(model, ids: list[int], at: int) -> np.ndarray:
    from ternrun.runtime.backend import Batch

    n, blocks = len(ids), np.arange(model.n_blocks, dtype=np.int32)
    return model.forward(Batch(ids, list(range(at, at + n)), [0] * n, [blocks], list(range(n))))


def compare(path: Path) -> None:
    with open_model(smollm2()) as source:
        texts = [source.tokenizer.encode(t) for t in TEXTS]
    ours, same, total, furthest = _ours(path), 0, 0, 0.0
    for ids in texts:
        theirs, mine = Reference(path).run(ids), _step(ours, ids, 0)
        same += int((theirs.argmax(1) == mine.argmax(1)).sum())
        total += len(ids)
        furthest = max(furthest, float(np.abs(theirs - mine).max() / np.ptp(theirs)))
    print(f"{path.name}: argmax equal at {same} of {total} positions, largest difference {furthest:.2g} of the range")


def speed(path: Path, tokens: int = 24) -> None:
    reference, ours = Reference(path), _ours(path)
    prompt = list(range(100, 132))
    reference.run(prompt)
    _step(ours, prompt, 0)
    at = len(prompt)
    rates: dict[str, list[float]] = {"onnxruntime": [], "ternrun": []}
    for _ in range(3):
        for name, run in (
            ("onnxruntime", lambda t, a: reference.run([t])),
            ("ternrun", lambda t, a: _step(ours, [t], a)),
        ):
            start = time.perf_counter()
            for i in range(tokens):
                run(100 + i, at + i)
            rates[name].append(tokens / (time.perf_counter() - start))
        at += tokens
    best = {name: max(r) for name, r in rates.items()}
    print(f"{path.name}: {json.dumps(best)} tokens a second, {best['ternrun'] / best['onnxruntime']:.2f} times")


if __name__ == "__main__":
    task, target, *rest = sys.argv[1:]
    {"folder": folder, "compare": compare, "speed": speed}.get(task, lambda p: export(p, rest))(Path(target))
