"""The runtime's kernels, reading an exported file, against the torch model it was exported from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ternrun.train.config import DecoderConfig, TrainConfig
from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.evaluate.checkpoint import compare
from ternrun.train.evaluate.parity import compare_logits, open_runtime, runtime_logits, torch_logits
from ternrun.train.export.gguf import export, round_dense
from ternrun.train.model.decoder import Decoder
from tests.train.runs import train
from tests.train.test_export import FAMILIES, trained_enough


@pytest.mark.parametrize("family", FAMILIES)
def test_runtime_gives_the_logits_of_training(
    family: str, shape: Callable[..., DecoderConfig], data_folder: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizers.load(data_folder / "tokenizer.json")
    size = tokenizer.get_vocab_size()
    model = trained_enough(Decoder(shape(**FAMILIES[family], vocab_size=size)))
    export(round_dense(model), tokenizer, tmp_path / "m.gguf")
    texts = [torch.randint(size, (8,)).numpy() for _ in range(32)]  # short: a tie parts the readers to a text's end
    with open_runtime(tmp_path / "m.gguf", 8) as runtime:
        found = compare_logits((torch_logits(model, ids), runtime_logits(runtime, ids)) for ids in texts)
    assert found.same_argmax >= 0.99
    assert found.median <= (1e-3 if family == "twin" else 1e-6)
    assert found.largest <= 1e-2


@pytest.mark.parametrize("dense", ["f16", "f32", "q8_0"])
def test_a_checkpoint_is_compared_as_the_file_rounds_it(
    dense: str, config: Callable[..., TrainConfig], data_folder: Path, tmp_path: Path
) -> None:
    run = train(config(exportable=True, optim__steps=1, optim__decay_steps=0), tmp_path / "run").run
    export(run.model, run.corpus.tokenizer, tmp_path / "m.gguf", dense=dense)
    found = compare(tmp_path / "run" / "last.safetensors", data_folder, tmp_path / "m.gguf", 128)
    assert found["apart_median"] < 1e-4  # 1e-3 and more where the checkpoint is rounded otherwise
