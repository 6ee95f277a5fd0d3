"""Every architecture of a config.json against transformers in float32: from the folder, and through a GGUF file.

`tests/oracle/architectures.py` made the data. Sizes are odd on purpose: a vocabulary of 307, 272 hidden columns.
"""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.architectures.assemble import assemble
from ternrun.loader.convert import convert
from ternrun.loader.hf.folder import open_hf
from ternrun.loader.model import open_model
from ternrun.runtime.backend.registry import select_backend
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.weights import Weights
from tests.fakes_hf import tokenizer_files, write_safetensors
from tests.oracle.architectures import CASES, KEPT, ids, values
from tests.runtime.cpu.models import logits_of

#: What GGUF has no key for: llama.cpp's own files of these models lose it.
NOT_IN_GGUF = {
    "mistral, window": "sliding_window", "gemma2, no softcaps": "logit_softcap",
    "smollm3, every second layer": "rope_layers",
}  # fmt: skip


@cache
def data() -> dict[str, Any]:
    packed = (Path(__file__).parents[1] / "data/architectures.json.xz").read_bytes()
    found: dict[str, Any] = json.loads(lzma.decompress(packed))
    return found


def write_folder(folder: Path, name: str) -> Path:
    """The folder that transformers would save."""
    case = data()[name]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(case["config"]))
    offset = case["config"]["model_type"].startswith("gemma")
    stored = {
        n: ("F32", tuple(shape), values(n, shape, offset=offset).tobytes()) for n, shape in case["shapes"].items()
    }
    write_safetensors(folder / "model.safetensors", stored)
    return folder


def log_probabilities(weights: Weights, name: str) -> NDArray[np.float64]:
    model = select_backend("auto")[0].load(weights, EngineConfig(threads=1, kv_type="f32", context=64))
    try:
        logits = logits_of(model, ids(name), (5, 1, 1, 9)).astype(np.float64)
    finally:
        model.close()
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))


@pytest.mark.parametrize("name", CASES)
def test_a_folder_agrees_with_transformers(name: str, tmp_path: Path) -> None:
    checkpoint = open_hf(write_folder(tmp_path / "model", name))
    found = log_probabilities(assemble(checkpoint.config, checkpoint.tensors), name)[KEPT]
    assert np.abs(found - data()[name]["logprobs"]).max() <= 1e-4


@pytest.mark.parametrize("name", CASES)
def test_a_gguf_file_of_it_agrees_too(name: str, tmp_path: Path) -> None:
    folder, target = write_folder(tmp_path / "model", name), tmp_path / "model.gguf"
    tokenizer_files(folder, data()[name]["config"]["vocab_size"])
    if name in NOT_IN_GGUF:
        with pytest.raises(LoadError, match=f"cannot hold {NOT_IN_GGUF[name]}"):
            convert(folder, target, "f32")
        return
    convert(folder, target, "f32")
    with open_model(target) as model:
        found = log_probabilities(model.weights, name)[KEPT]
    assert np.abs(found - data()[name]["logprobs"]).max() <= 1e-4
