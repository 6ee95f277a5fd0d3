"""The numpy reference against llama.cpp's logits, kept in tests/data (made by tests/oracle/arch_check.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ternrun.loader.model import open_model
from tests.fakes import fake_gguf
from tests.oracle.arch_check import CASES, DATA, KEPT, TOKENS, case
from tests.reference import forward

# share of the logits' range; gemma3: llama.cpp looks GELU up in a table of fp16 values;
# tq: llama.cpp quantizes activations per 256 values, BitNet and ternrun per token
TOLERANCES = {"gemma3": 5e-4, "gemma3-linear": 5e-4, "llama-tq1": 0.02, "qwen3-tq2": 0.02, "bitnet-tq2": 0.02}


@pytest.mark.parametrize("name", CASES)
def test_reference_agrees_with_llama_cpp(name: str, tmp_path: Path) -> None:
    with open_model(fake_gguf(tmp_path / "model.gguf", case(name))) as model:
        ours = forward(model.weights, TOKENS, kv="f32")[KEPT]
    theirs = np.load(DATA)[name]
    assert np.abs(ours - theirs).max() <= TOLERANCES.get(name, 3e-6) * np.ptp(theirs)
    assert (ours.argmax(-1) == theirs.argmax(-1)).all()
