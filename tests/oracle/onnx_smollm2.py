"""Large graphs to measure on: SmolLM2's weights as ONNX by several exporters, and ternary models in every form.

python -m tests.oracle.onnx_smollm2 folder OUT             SmolLM2 as a Hugging Face folder, from the GGUF's weights
python -m tests.oracle.onnx_smollm2 export OUT ROUTE...    torch, torch-23, torchscript; optimum, then optimum-fp16;
                                                           fp32, fp16, int4: onnxruntime-genai (see onnx_tiny.py)
python -m tests.oracle.onnx_smollm2 ternary OUT FILE...    GGUF files, or shapes such as nano-125m, by ternrun

`onnx_beside.py` measures them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx

from ternrun.loader.model import open_model
from ternrun.loader.quants.table import decode
from tests.fakes_hf import hf_name, write_safetensors
from tests.smollm2 import smollm2


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
    from tests.oracle.onnx_tiny import by_genai, by_optimum, by_torch

    for route in routes:
        target = out.with_name(f"{out.name}-{route}.onnx")
        match route.partition("-"):
            case "torch", _, opset:
                by_torch(out, target, "sdpa", True, int(opset or 18))
            case "torchscript", _, _:
                by_torch(out, target, "sdpa", False, 17)
            case "optimum", _, "":
                by_optimum(out, target)
            case "optimum", _, "fp16":  # as transformers.js has its fp16 files made
                from onnxruntime.transformers.float16 import convert_float_to_float16

                model = onnx.load(out.with_name(f"{out.name}-optimum.onnx"))
                onnx.save(convert_float_to_float16(model), target)
            case _:
                by_genai(out, target, route, "cpu")
        print(target)


def ternary(source: str, out: Path) -> None:
    from ternrun.bench.synthetic import SHAPES, write_synthetic
    from ternrun.loader.onnx.write import FORMS, write_onnx

    out.mkdir(parents=True, exist_ok=True)
    path = write_synthetic(out / f"{source}.gguf", source, "TQ2_0") if source in SHAPES else Path(source)
    with open_model(path) as model:
        for form in FORMS:
            write_onnx(out / f"{path.stem}-{form}.onnx", model.weights, form)


if __name__ == "__main__":
    task, target, *rest = sys.argv[1:]
    if task == "folder":
        folder(Path(target))
    elif task == "export":
        export(Path(target), rest)
    else:
        for source in rest:
            ternary(source, Path(target))
