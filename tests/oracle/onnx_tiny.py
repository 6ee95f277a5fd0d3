"""Tiny decoders through every exporter, for tests/onnx/test_exporters.py: graphs as they really come.

    python -m tests.oracle.onnx_tiny tests/data/onnx [ROUTE...]

Needs torch, transformers, onnxscript and onnxruntime-genai; the route `optimum` needs optimum-onnx, which asks for an
older transformers: run it in an environment of its own. Weights are multiples of 1/16, so that the files compress well.
Made with torch 2.13.0, transformers 5.23.0 (optimum: 4.57.1), onnxruntime-genai 0.18.0, optimum-onnx 0.1.0.
"""

from __future__ import annotations

import lzma
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

SIZES = {
    "vocab_size": 80, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.2,
}  # fmt: skip
MODELS = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama3": LlamaConfig(**SIZES, tie_word_embeddings=False, attention_bias=True, rope_scaling={
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=False),
}  # fmt: skip
IDS = [1, 5, 9, 47, 30, 12, 44, 3, 60]
ROUTES = {  # name -> (model, exporter, its settings)
    "llama-torch-sdpa": ("llama", "torch", ("sdpa", True, 18)),
    "llama-torch-eager": ("llama", "torch", ("eager", True, 18)),
    "llama-torch-opset23": ("llama", "torch", ("sdpa", True, 23)),
    "llama-torchscript": ("llama", "torch", ("sdpa", False, 17)),
    "llama3-torch": ("llama3", "torch", ("sdpa", True, 18)),
    "qwen2-torch": ("qwen2", "torch", ("sdpa", True, 18)),
    "qwen3-torch": ("qwen3", "torch", ("sdpa", True, 18)),
    "llama-genai-fp32": ("llama", "genai", ("fp32", "cpu")),
    "llama-genai-fp16": ("llama", "genai", ("fp16", "cpu")),
    "llama-genai-bf16": ("llama", "genai", ("bf16", "webgpu")),
    "llama-genai-int4": ("llama", "genai", ("int4", "cpu")),
    "llama3-genai": ("llama3", "genai", ("fp32", "cpu")),
    "qwen2-genai": ("qwen2", "genai", ("fp32", "cpu")),
    "qwen3-genai": ("qwen3", "genai", ("fp32", "cpu")),
    "llama-optimum": ("llama", "optimum", ()),
}


def make(name: str, folder: Path) -> torch.nn.Module:
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(MODELS[name]).eval()
    for parameter in model.parameters():
        noise = torch.randn_like(parameter) * (0.2 if parameter.dim() == 1 else 0)
        parameter.data = torch.round((parameter.data + noise) * 16) / 16
    model.save_pretrained(folder)
    return model


class WithCache(torch.nn.Module):
    """A decoder whose cache is plain inputs and outputs."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids, *past):
        from transformers import DynamicCache

        pairs = list(zip(past[::2], past[1::2], strict=True))
        out = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=DynamicCache(pairs), use_cache=True,
        )  # fmt: skip
        return (out.logits, *(t for layer in out.past_key_values.layers for t in (layer.keys, layer.values)))


def by_torch(source: Path, target: Path, attention: str, dynamo: bool, opset: int) -> None:
    model = AutoModelForCausalLM.from_pretrained(source, attn_implementation=attention).eval()
    config = model.config
    layers, width = config.num_hidden_layers, getattr(config, "head_dim", None)
    width = width or config.hidden_size // config.num_attention_heads
    past = [torch.randn(2, config.num_key_value_heads, 4, width) for _ in range(2 * layers)]
    args = (torch.ones(2, 3, dtype=torch.long), torch.ones(2, 7, dtype=torch.long), torch.arange(4, 7).repeat(2, 1))
    inputs = ["input_ids", "attention_mask", "position_ids"]
    inputs += [f"past_key_values.{i}.{kind}" for i in range(layers) for kind in ("key", "value")]
    outputs = ["logits"] + [f"present.{i}.{kind}" for i in range(layers) for kind in ("key", "value")]
    names = {"input_names": inputs, "output_names": outputs, "opset_version": opset}
    module = WithCache(model)
    if dynamo:
        any_size = torch.export.Dim.DYNAMIC
        two = {0: any_size, 1: any_size}
        shapes = (two, two, two, tuple({0: any_size, 2: any_size} for _ in past))
        large = layers > 8
        torch.onnx.export(
            module, (*args, *past), target, dynamo=True, dynamic_shapes=shapes, external_data=large, **names
        )
    else:
        axes = {n: {0: "batch", 2 if "." in n else 1: f"axis_{n}"} for n in inputs + outputs}
        torch.onnx.export(module, (*args, *past), target, dynamo=False, dynamic_axes=axes, **names)


def by_genai(source: Path, target: Path, precision: str, provider: str) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    if not (source / "tokenizer.json").exists():
        tokens = Tokenizer(models.BPE({"a": 0}, []))
        PreTrainedTokenizerFast(tokenizer_object=tokens).save_pretrained(source)
    out = target.with_suffix("")
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", source, "-o", out]
    subprocess.run([*builder, "-p", precision, "-e", provider, "-c", source / "cache"], check=True)
    onnx.save(onnx.load(out / "model.onnx"), target)


def by_optimum(source: Path, target: Path) -> None:
    from optimum.exporters.onnx import main_export

    out = target.with_suffix("")
    main_export(str(source), str(out), task="text-generation-with-past")
    onnx.save(onnx.load(out / "model.onnx"), target)


EXPORTERS = {"torch": by_torch, "genai": by_genai, "optimum": by_optimum}


def main(out: Path, wanted: list[str]) -> None:
    warnings.simplefilter("ignore")
    logits = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted or [r for r in ROUTES if "optimum" not in r]:
            model, exporter, settings = ROUTES[name]
            source, target = Path(folder) / model, Path(folder) / f"{name}.onnx"
            module = make(model, source)
            with torch.no_grad():
                logits[model] = module(torch.tensor([IDS])).logits[0].numpy()
            EXPORTERS[exporter](source, target, *settings)
            data = lzma.compress(target.read_bytes(), preset=9)
            (out / f"{name}.onnx.xz").write_bytes(data)
            print(f"{name}: {target.stat().st_size} bytes, {len(data)} compressed")
    if not wanted:
        np.savez_compressed(out / "logits.npz", ids=np.array(IDS), **logits)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
