"""A run that begins from a model file begins as that very model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ternrun.errors import ConfigError
from ternrun.train.config import DecoderConfig, TrainConfig
from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.export.gguf import export, round_dense
from ternrun.train.loop.init_from_model import init_from_model, master_weight, source_parameter
from ternrun.train.model.bitlinear import BitLinear, Granularity, ternarize
from ternrun.train.model.decoder import Decoder
from tests.train.runs import new_trainer, train
from tests.train.test_export import FAMILIES, trained_enough

MakeShape = Callable[..., DecoderConfig]


@pytest.mark.parametrize("family", [name for name in FAMILIES if "mhc" not in name])
def test_the_model_begun_is_the_file(family: str, shape: MakeShape, data_folder: Path, tmp_path: Path) -> None:
    tokenizer = tokenizers.load(data_folder / "tokenizer.json")
    wanted = shape(**FAMILIES[family], vocab_size=tokenizer.get_vocab_size())
    model, begun = trained_enough(Decoder(wanted)), Decoder(wanted)
    export(round_dense(model), tokenizer, tmp_path / "m.gguf", dense="f16")
    init_from_model(tmp_path / "m.gguf", begun, tokenizer, seed=3)
    export(begun, tokenizer, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()
    if family != "twin":  # whose weights f16 rounds
        ids = torch.randint(tokenizer.get_vocab_size(), (1, 32))
        assert torch.equal(begun.logits(ids), model.logits(ids))


@pytest.mark.parametrize("granularity", ["tensor", "row", "group"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.7, 1.0])
def test_ternary_weights_are_spread_within_their_values(granularity: Granularity, share: float) -> None:
    generator = torch.Generator().manual_seed(1)
    trits = (torch.rand(96, 512, generator=generator) < share) * torch.randn(96, 512, generator=generator).sign()
    scale = torch.tensor(0.0371).half().float()
    master = master_weight(trits * scale, granularity, generator)
    again, scales = ternarize(master, granularity)
    assert torch.equal(again, trits)
    assert torch.equal((again.view(96, scales.shape[1], -1) * scales).view(96, -1), trits * scale)
    if share > 0:
        assert master.unique().numel() > 0.9 * master.numel()  # no two weights are bound to move together


def test_weights_that_are_not_ternary_are_taken_as_they_are() -> None:
    weight = torch.randn(8, 256)
    assert torch.equal(master_weight(weight, "row", torch.Generator()), weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 1}, "n_layers 2, the run 1"),
        ({"ffn_dim": 512}, "ffn_dim 256, the run 512"),
        ({"rope_base": 500.0}, "rope"),
        ({"activation": "relu2"}, "activation silu, the run relu2"),
        ({"sub_norm": False}, "attn_sub_norm.weight, which this run's model does not have"),
        ({"tied": False}, "no output.weight, which this run's model has"),
        ({"mhc_streams": 2}, "several residual streams"),
    ],
)
def test_another_model_is_refused(
    changes: dict[str, object], message: str, shape: MakeShape, data_folder: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizers.load(data_folder / "tokenizer.json")
    size = tokenizer.get_vocab_size()
    export(Decoder(shape(vocab_size=size)), tokenizer, tmp_path / "m.gguf")
    with pytest.raises(ConfigError, match=message):
        init_from_model(tmp_path / "m.gguf", Decoder(shape(vocab_size=size, **changes)), tokenizer, seed=0)


def test_a_deeper_model_begins_with_every_block_several_times(
    shape: MakeShape, data_folder: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizers.load(data_folder / "tokenizer.json")
    size = tokenizer.get_vocab_size()
    model, deeper = trained_enough(Decoder(shape(vocab_size=size))), Decoder(shape(vocab_size=size, n_layers=5))
    export(round_dense(model), tokenizer, tmp_path / "m.gguf")
    init_from_model(tmp_path / "m.gguf", deeper, tokenizer, seed=3)
    for index, source in enumerate((0, 0, 0, 1, 1)):
        for mine, theirs in zip(linears(deeper, index), linears(model, source), strict=True):
            assert all(map(torch.equal, ternarize(mine, "tensor"), ternarize(theirs, "tensor")))
    first, copy = linears(deeper, 0)[0], linears(deeper, 1)[0]
    assert not torch.equal(first, copy)  # or both would learn the same for ever
    assert torch.equal(deeper.token_embd.weight, model.token_embd.weight)
    assert [source_parameter(f"blk.{i}.ffn.w", 3, 5) for i in range(5)] == [f"blk.{i}.ffn.w" for i in (0, 0, 1, 1, 2)]


def linears(model: Decoder, block: int) -> list[torch.Tensor]:
    return [module.weight for module in model.blk[block].modules() if isinstance(module, BitLinear)]


def test_another_tokenizer_is_refused_and_the_files_own_is_taken(
    shape: MakeShape, data_folder: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizers.load(data_folder / "tokenizer.json")
    size = tokenizer.get_vocab_size()
    export(Decoder(shape(vocab_size=size)), tokenizer, tmp_path / "m.gguf")
    carried = tokenizers.load(tmp_path / "m.gguf")
    text = "def f(x):\n    return x + 42  # <|endoftext|> é"
    assert carried.encode(text).ids == tokenizer.encode(text).ids
    assert carried.decode(carried.encode(text).ids) == tokenizer.decode(tokenizer.encode(text).ids)
    other = tokenizers.train_bpe(["while True:\n    break\n" * 9, "the quick brown fox " * 9], 300)
    with pytest.raises(ConfigError, match="make the data with --tokenizer"):
        init_from_model(tmp_path / "m.gguf", Decoder(shape(vocab_size=other.get_vocab_size())), other, seed=0)


def test_a_run_goes_on_from_the_file(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    first = train(config(exportable=True, optim__steps=1, optim__decay_steps=0), tmp_path / "first").run
    export(round_dense(first.model), first.corpus.tokenizer, tmp_path / "m.gguf")
    second = new_trainer(config(exportable=True), tmp_path / "second", init_from=tmp_path / "m.gguf")
    assert second.validator.validate().loss == pytest.approx(first.state.best, abs=1e-3)  # the embedding is in fp16
    second.run.log.close()
