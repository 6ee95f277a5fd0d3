"""Log-probabilities of tiny random models by transformers in float32, for every architecture of a config.json.

    python -m tests.oracle.architectures tests/data/architectures.json.xz      (needs transformers 5 and torch)

Weights follow from a tensor's name (`values`), so the data holds configurations, names, shapes and log-probabilities.
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

BASE: dict[str, Any] = {
    "vocab_size": 307, "hidden_size": 96, "intermediate_size": 272, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
CASES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama, biases, one key head": {
        "model_type": "llama", "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1,
    },
    "llama, all heads, tied, llama3": {
        "model_type": "llama", "num_key_value_heads": 4, "tie_word_embeddings": True, "rope_parameters": LLAMA3,
    },
    "llama, yarn": {"model_type": "llama", "rope_parameters": YARN},
    "llama, linear": {
        "model_type": "llama", "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
    },
    "mistral, window": {"model_type": "mistral", "sliding_window": 7},
    "mistral, no window": {"model_type": "mistral", "sliding_window": None, "head_dim": 24},
    "qwen2": {"model_type": "qwen2", "head_dim": 24},
    "qwen2, windows of the last layers": {
        "model_type": "qwen2", "head_dim": 24, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2,
    },
    "qwen3": {"model_type": "qwen3"},
    "qwen3, biases": {"model_type": "qwen3", "attention_bias": True},
    "gemma2": {"model_type": "gemma2", "sliding_window": 6, "query_pre_attn_scalar": 24, "tie_word_embeddings": True},
    "gemma2, no softcaps": {
        "model_type": "gemma2", "sliding_window": 6, "attn_logit_softcapping": None, "final_logit_softcapping": None,
        "tie_word_embeddings": True,
    },
    "gemma3": {"model_type": "gemma3_text", "sliding_window": 6, "tie_word_embeddings": True},
    "gemma3, biases, scaled rope": {
        "model_type": "gemma3_text", "sliding_window": 6, "tie_word_embeddings": True, "attention_bias": True,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    "phi3": {"model_type": "phi3", "head_dim": None, "sliding_window": 9},
    "phi3, partly rotated": {"model_type": "phi3", "head_dim": None, "partial_rotary_factor": 0.75},
    "granite": {
        "model_type": "granite", "head_dim": None, "embedding_multiplier": 12.0, "attention_multiplier": 0.08,
        "residual_multiplier": 0.22, "logits_scaling": 8.0, "tie_word_embeddings": True,
    },
    "granite, biases, own head": {
        "model_type": "granite", "head_dim": None, "embedding_multiplier": 3.0, "attention_multiplier": 0.2,
        "residual_multiplier": 0.5, "logits_scaling": 2.0, "attention_bias": True, "mlp_bias": True,
    },
    "smollm3": {"model_type": "smollm3", "head_dim": None},
    "smollm3, every second layer": {"model_type": "smollm3", "head_dim": None, "no_rope_layer_interval": 2},
    "olmo2": {"model_type": "olmo2", "head_dim": None},
    "olmo2, odd heads": {
        "model_type": "olmo2", "head_dim": None, "hidden_size": 60, "num_attention_heads": 6, "num_key_value_heads": 3,
    },
}  # fmt: skip
TOKENS = 24
KEPT = slice(3, None, 5)  # positions whose log-probabilities are kept


def ids(name: str) -> list[int]:
    """The token ids that a case is scored on."""
    return np.random.default_rng(crc32(name.encode())).integers(3, 300, TOKENS).tolist()


def values(name: str, shape: list[int], *, offset: bool) -> NDArray[np.float32]:
    """The weights of a tensor of safetensors. `offset`: the model adds 1 to its norms."""
    rng = np.random.default_rng(crc32(name.encode()))
    if "norm" in name:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32) - np.float32(offset)
    scale = 0.3 if len(shape) == 1 else 1 / np.sqrt(shape[-1])
    return np.asarray(rng.standard_normal(shape) * scale, np.float32)


def main() -> None:
    """Write the data."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    found = {}
    for name, case in CASES.items():
        config = {key: value for key, value in (BASE | case).items() if value is not None or key in case}
        config = {key: value for key, value in config.items() if not (key == "head_dim" and value is None)}
        made = AutoConfig.for_model(config["model_type"], **{k: v for k, v in config.items() if k != "model_type"})
        made._attn_implementation = "eager"
        model = AutoModelForCausalLM.from_config(made, dtype=torch.float32).eval()
        offset = config["model_type"].startswith("gemma")
        shapes = {n: list(p.shape) for n, p in model.named_parameters()}
        with torch.no_grad():
            for n, p in model.named_parameters():
                p.copy_(torch.from_numpy(values(n, shapes[n], offset=offset)))
            logits = model(torch.tensor([ids(name)])).logits[0]
        found[name] = {
            "config": made.to_dict(),
            "shapes": shapes,
            "logprobs": [[round(v, 5) for v in row] for row in torch.log_softmax(logits.double(), -1)[KEPT].tolist()],
        }
        print(name, sum(int(np.prod(s)) for s in shapes.values()))
    Path(sys.argv[1]).write_bytes(lzma.compress(json.dumps(found, default=str).encode(), preset=9))


if __name__ == "__main__":
    main()
