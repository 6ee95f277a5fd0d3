"""The same weights in torch and, through the exported file, in the numpy reference: logits agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ternrun.errors import ConfigError, UsageError
from ternrun.loader.model import open_model
from ternrun.loader.onnx.write import FORMS
from ternrun.loader.quants.table import decode
from ternrun.loader.tokenizers.tokenizer import Tokenizer
from ternrun.train.config import DecoderConfig
from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.export.gguf import export, round_dense
from ternrun.train.export.onnx import export_onnx
from ternrun.train.model.bitlinear import Granularity, ternarize
from ternrun.train.model.decoder import Decoder
from ternrun.train.model.gguf_mapping import architecture
from tests.reference import forward
from tests.train.double import reference_double, torch_double

FAMILIES = {
    "bitnet": {},
    "bitnet-b1.58": {"activation": "relu2"},
    "llama": {"sub_norm": False},
    "qwen3": {"sub_norm": False, "qk_norm": True},
    "untied": {"tied": False},
    "mhc-2": {"mhc_streams": 2},
    "mhc-4": {"mhc_streams": 4, "qk_norm": True, "activation": "relu2"},
    "row": {"granularity": "row"},
    "group": {"granularity": "group", "dim": 512, "ffn_dim": 512},
    "twin": {"ternary": False},
}


def trained_enough(model: Decoder) -> Decoder:
    """Random weights in every parameter, so that nothing is tested at a value that hides it."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(noise * (0.3 if parameter.ndim == 1 else 0.02))
            if "mhc" in name:
                parameter.add_(noise)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_exported_file_gives_the_same_logits(
    family: str, shape: Callable[..., DecoderConfig], data_folder: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizers.load(data_folder / "tokenizer.json")
    model = trained_enough(Decoder(shape(**FAMILIES[family], vocab_size=tokenizer.get_vocab_size())))
    export(round_dense(model), tokenizer, tmp_path / "m.gguf")
    ids = torch.randint(tokenizer.get_vocab_size(), (1, 64))
    with torch.no_grad():
        ours = model.logits(ids)[0].numpy()
    with open_model(tmp_path / "m.gguf") as file:
        theirs = forward(file.weights, ids[0].numpy(), kv="f32")
    span = float(np.ptp(ours))
    apart = np.abs(ours - theirs).max(-1) / span
    if not model.config.ternary:
        assert apart.max() <= 1e-3  # weights rounded to fp16
        return
    assert np.median(apart) <= 1e-6
    assert apart.max() <= 1e-2  # where a sum's last bit tips an activation from one int8 value to the next
    assert (ours.argmax(-1) == theirs.argmax(-1)).all()


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "twin"])  # whose matrices the file rounds
def test_exported_file_and_model_are_one_function(
    family: str, shape: Callable[..., DecoderConfig], data_folder: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizers.load(data_folder / "tokenizer.json")
    model = trained_enough(Decoder(shape(**FAMILIES[family], vocab_size=tokenizer.get_vocab_size())))
    export(model, tokenizer, tmp_path / "m.gguf", dense="f32")
    ids = np.random.default_rng(0).integers(tokenizer.get_vocab_size(), size=64)
    ours = torch_double(model, ids)
    with open_model(tmp_path / "m.gguf") as file:
        theirs = reference_double(file.weights, ids)
    assert np.abs(ours - theirs).max() <= 1e-9 * np.ptp(ours)


@pytest.mark.parametrize(
    ("ternary", "granularity"),
    [("tq2_0", "tensor"), ("tq1_0", "tensor"), ("i2_s", "tensor"), ("kernel", "row"), ("kernel", "group")],
)
def test_every_type_holds_the_same_weights(
    ternary: str, granularity: Granularity, shape: Callable[..., DecoderConfig], data_folder: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizers.load(data_folder / "tokenizer.json")
    model = Decoder(shape(vocab_size=tokenizer.get_vocab_size(), granularity=granularity))
    export(model, tokenizer, tmp_path / "m.gguf", ternary=ternary)
    weight = model.blk[0].ffn.ffn_down.weight.detach()
    trits, scale = ternarize(weight, granularity)
    wanted = (trits.view(len(weight), scale.shape[1], -1) * scale).view_as(weight)
    with open_model(tmp_path / "m.gguf") as file:
        tensor = file.weights.tensors["blk.0.ffn_down.weight"]
        np.testing.assert_array_equal(decode(tensor.type, tensor.data, tensor.shape), wanted.numpy())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("granularity", ["tensor", "row", "group"])
def test_a_graph_holds_the_same_weights(
    form: str, granularity: Granularity, shape: Callable[..., DecoderConfig], data_folder: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizers.load(data_folder / "tokenizer.json")
    changes = FAMILIES["group"] if granularity == "group" else {"granularity": granularity}
    model = trained_enough(Decoder(shape(**changes, vocab_size=tokenizer.get_vocab_size())))
    export(model, tokenizer, tmp_path / "m.gguf")
    export_onnx(model, tokenizer, tmp_path / "m.onnx", form=form)
    with open_model(tmp_path / "m.gguf") as file, open_model(tmp_path / "m.onnx") as graph:
        for name in ("blk.0.attn_q.weight", "blk.1.ffn_down.weight"):
            ours, theirs = (opened.weights.tensors[name] for opened in (file, graph))
            np.testing.assert_array_equal(
                decode(ours.type, ours.data, ours.shape) * ours.scale,
                decode(theirs.type, theirs.data, theirs.shape) * theirs.scale,
            )


def test_tokenizer_travels_inside(shape: Callable[..., DecoderConfig], data_folder: Path, tmp_path: Path) -> None:
    tokenizer = tokenizers.load(data_folder / "tokenizer.json")
    export(Decoder(shape(vocab_size=tokenizer.get_vocab_size())), tokenizer, tmp_path / "m.gguf")
    text = "def f12_3(x):\n    return x + 2048  # naïve\n\n"
    with open_model(tmp_path / "m.gguf") as file:
        assert file.tokenizer.encode(text) == tokenizer.encode(text).ids
        assert file.tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_prompt_begins_as_the_texts_of_training_did(
    shape: Callable[..., DecoderConfig], data_folder: Path, tmp_path: Path
) -> None:
    """Both in GGUF and in tokenizer.json, without its marks in the text."""
    tokenizer = tokenizers.with_bos(tokenizers.load(data_folder / "tokenizer.json"))
    export(Decoder(shape(vocab_size=tokenizer.get_vocab_size())), tokenizer, tmp_path / "m.gguf")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    end = tokenizer.token_to_id(tokenizers.END)
    with open_model(tmp_path / "m.gguf") as file:
        for read in (file.tokenizer, Tokenizer.from_hf(tmp_path)):
            ids = read.encode("def f(x):")
            assert ids[0] == end
            assert end not in ids[1:]
            assert read.decode(ids) == "def f(x):"
            assert read.encode("def f(x):", bos=False) == ids[1:]


def test_what_cannot_be_written_is_refused(
    shape: Callable[..., DecoderConfig], data_folder: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizers.load(data_folder / "tokenizer.json")
    size = tokenizer.get_vocab_size()
    with pytest.raises(UsageError, match="256 columns"):
        export(Decoder(shape(vocab_size=size, ffn_dim=128)), tokenizer, tmp_path / "m.gguf")
    with pytest.raises(UsageError, match="tokens"):
        export(Decoder(shape(vocab_size=size + 1)), tokenizer, tmp_path / "m.gguf")
    with pytest.raises(UsageError, match="I2_S holds one scale"):
        export(Decoder(shape(vocab_size=size, granularity="row")), tokenizer, tmp_path / "m.gguf", ternary="i2_s")
    with pytest.raises(ConfigError, match=r"repeat_penalty must be a number from 0.01"):
        export(Decoder(shape(vocab_size=size)), tokenizer, tmp_path / "m.gguf", repeat_penalty=-1)
    assert not (tmp_path / "m.gguf").exists()


def test_architecture_is_a_standard_one_where_it_can_be(shape: Callable[..., DecoderConfig]) -> None:
    names = {family: architecture(shape(**changes)) for family, changes in FAMILIES.items()}
    for family in ("bitnet", "bitnet-b1.58", "llama", "qwen3"):
        assert names[family] == family
    assert names["mhc-2"] == names["mhc-4"] == "ternrun"
