"""The runtime's kernels, reading an exported file, against the torch model it was exported from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ternrun.train.config import Shape, TrainConfig
from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.export.checkpoint_loader import compare
from ternrun.train.export.gguf import export, round_dense
from ternrun.train.export.parity import compared, running, runtime_logits, torch_logits
from ternrun.train.loop.devices import Place
from ternrun.train.loop.trainer import Trainer
from ternrun.train.model.decoder import Decoder
from tests.train.test_export import FAMILIES, trained_enough


@pytest.mark.parametrize("family", FAMILIES)
def test_runtime_gives_the_logits_of_training(
    family: str, shape: Callable[..., Shape], data_folder: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizers.load(data_folder / "tokenizer.json")
    size = tokenizer.get_vocab_size()
    model = trained_enough(Decoder(shape(**FAMILIES[family], vocab_size=size)))
    export(round_dense(model), tokenizer, tmp_path / "m.gguf")
    texts = [torch.randint(size, (8,)).numpy() for _ in range(32)]  # short: a tie parts the readers to a text's end
    with running(tmp_path / "m.gguf", 8) as runtime:
        found = compared((torch_logits(model, ids), runtime_logits(runtime, ids)) for ids in texts)
    assert found.same >= 0.99
    assert found.median <= (1e-3 if family == "twin" else 1e-6)
    assert found.largest <= 1e-2


@pytest.mark.parametrize("dense", ["f16", "f32", "q8_0"])
def test_a_checkpoint_is_compared_as_the_file_rounds_it(
    dense: str, config: Callable[..., TrainConfig], data_folder: Path, tmp_path: Path
) -> None:
    trainer = Trainer(config(), tmp_path / "run", Place(torch.device("cpu")), resume=False)
    trainer.run()
    export(trainer.model, trainer.corpus.tokenizer, tmp_path / "m.gguf", dense=dense)
    found = compare(tmp_path / "run" / "last.safetensors", data_folder, tmp_path / "m.gguf", 128)
    assert found["apart_median"] < 1e-4  # 1e-3 and more where the checkpoint is rounded otherwise
