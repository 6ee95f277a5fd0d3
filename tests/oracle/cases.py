"""Ternary files that llama.cpp and ternrun both run: what tests and the oracle's scripts must agree on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.fakes import fake_gguf, fake_weights
from tests.texts import HERE

TARGET = HERE / "ternary_nll.json"
IDS: list[int] = np.random.default_rng(11).integers(0, 256, 384).tolist()
CASES = [(arch, encoding) for arch in ("llama", "qwen3", "bitnet") for encoding in ("TQ1_0", "TQ2_0")]


def write(folder: Path, arch: str, encoding: str) -> Path:
    """The file of one case."""
    return fake_gguf(folder / f"{arch}-{encoding}.gguf", fake_weights(arch, encoding, seed=3))
