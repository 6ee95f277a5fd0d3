"""Make tests/data/arch_logits.npz: llama.cpp's logits for seeded fake models of every architecture it shares with us.

    python -m tests.oracle.arch_check          # needs llama-cpp-python; run from the repository's root

tests/loader/test_arch_oracle.py rebuilds the same models from their seeds and compares the numpy reference with this
file, so the gate needs no llama.cpp. Weights are F32, so that nothing but wiring can differ; the `-tq` cases are
TQ1_0 and TQ2_0 files, which llama.cpp reads through its own decoders.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ternrun.runtime.weights import Weights
from tests.fakes import fake_gguf, fake_weights

DATA = Path(__file__).parent.parent / "data" / "arch_logits.npz"
TOKENS = np.random.default_rng(7).integers(0, 256, 48).tolist()
KEPT = slice(5, 48, 6)  # positions whose logits are stored

CASES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-own-head": {"tied": False, "n_kv_heads": 4, "extras": ("qkv_bias", "output_bias", "ffn_bias")},
    "llama-3": {"rope": {"base": 5e5, "frequency_factors": tuple(np.linspace(1, 8, 32).tolist())}},
    "llama-linear": {"rope": {"scaling": "linear", "factor": 4.0}},
    "llama-yarn": {"rope": {"scaling": "yarn", "factor": 4.0, "original_context": 64, "attention_factor": 1.138629436}},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "qwen3-yarn": {"rope": {"scaling": "yarn", "factor": 2.0, "original_context": 128, "attention_factor": 1.3}},
    "gemma3": {"n_layers": 7, "sliding_layers": tuple(n % 6 < 5 for n in range(7)), "vocab_size": 384},
    "gemma3-linear": {"rope": {"scaling": "linear", "factor": 8.0}, "logit_softcap": 2.0},
    "bitnet": {"extras": ("scale",)},
    "llama-tq1": {"encoding": "TQ1_0"},
    "qwen3-tq2": {"encoding": "TQ2_0"},
    "bitnet-tq2": {"encoding": "TQ2_0"},
}


def case(name: str) -> Weights:
    """The fake model of that name."""
    settings = {"encoding": "F32", "head": "F32", "seed": len(name)} | CASES[name]
    return fake_weights(name.split("-")[0], settings.pop("encoding"), **settings)


def main() -> None:
    """Run every case through llama.cpp and store what it says."""
    import llama_cpp

    logits = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            path = fake_gguf(Path(folder) / f"{name}.gguf", case(name))
            model = llama_cpp.Llama(
                str(path), n_ctx=512, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0
            )
            model.eval(TOKENS)
            logits[name] = np.array(model.scores[: len(TOKENS)], np.float32)[KEPT]
            model.close()
    DATA.parent.mkdir(exist_ok=True)
    np.savez_compressed(DATA, version=np.array(llama_cpp.__version__), **logits)


if __name__ == "__main__":
    main()
