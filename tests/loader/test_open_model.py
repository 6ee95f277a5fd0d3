"""Opening models: what is found where, and one clear sentence for what is not a model."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from ternrun.errors import LoadError
from ternrun.loader.gguf.write import write_gguf
from ternrun.loader.model import open_model
from tests.fakes import fake_gguf, fake_weights
from tests.fakes_hf import write_seed
from tests.reference import forward

SMALL = {"dim": 128, "n_heads": 2, "n_kv_heads": 1, "ffn_dim": 128, "n_layers": 2, "vocab_size": 260}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return fake_gguf(folder / "tiny.gguf", fake_weights("qwen3", "I2_S", **SMALL), general__name="Tiny")


def test_a_file_and_the_folder_that_holds_it_are_the_same_model(gguf: Path) -> None:
    with open_model(gguf) as model, open_model(str(gguf.parent)) as same:
        assert (model.name, model.size) == ("Tiny", gguf.stat().st_size)
        assert model.path == same.path
        assert model.chat_template is None
        assert model.tokenizer.encode("hi") == [*b"hi"]


def test_tokenizer_is_built_once_by_however_many_threads_ask(gguf: Path) -> None:
    with open_model(gguf) as model:
        seen: list[object] = []
        threads = [threading.Thread(target=lambda: seen.append(model.tokenizer)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 8
        assert len(set(map(id, seen))) == 1


def test_weights_are_views_of_the_file_until_closed(gguf: Path) -> None:
    model = open_model(gguf)
    tensor = model.weights.tensors["blk.0.attn_q.weight"]
    assert not tensor.data.flags.writeable
    assert not tensor.data.flags.owndata
    model.close()
    assert not model.weights.tensors
    assert tensor.data[0] >= 0  # the map lives as long as anyone looks at it


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("gone.gguf", None, "does not exist"),
        ("page.gguf", b"<!DOCTYPE html><html>", "is a web page"),
        ("empty.gguf", b"", "is empty"),
        ("text.gguf", b"hello", "is a text, not a GGUF file"),
        ("cut.gguf", b"GGUF\x03\0\0\0\x05\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0", "announces 5 tensors"),
    ],
)
def test_what_is_not_a_model_says_so(name: str, content: bytes | None, fault: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LoadError, match=fault) as error:
        open_model(path)
    assert str(error.value).count(name) == 1


def test_truncated_download_is_refused(gguf: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf.read_bytes()[:-200])
    with pytest.raises(LoadError, match=r"cut\.gguf"):
        open_model(cut)


def test_folders_without_one_model(gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="holds no model"):
        open_model(tmp_path)
    (tmp_path / "a.gguf").write_bytes(gguf.read_bytes())
    (tmp_path / "b.gguf").write_bytes(gguf.read_bytes())
    with pytest.raises(LoadError, match="holds 2 models; name one"):
        open_model(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "model.safetensors").write_bytes(b"")
    with pytest.raises(LoadError, match="safetensors files but no config.json"):
        open_model(tmp_path / "sub")
    with pytest.raises(LoadError):
        open_model("~no-such-user-here/model.gguf")


def test_a_vocabulary_without_weights_is_not_a_model(tmp_path: Path) -> None:
    write_gguf(tmp_path / "v.gguf", {"general.architecture": "llama"}, [])
    with pytest.raises(LoadError, match=r"'token_embd.weight' is missing .* no language model"):
        open_model(tmp_path / "v.gguf")


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_seed_projects_file(streams: int, tmp_path: Path) -> None:
    weights = fake_weights("nanochat-ternary", "Q1_58", tied=streams == 2, head="F32", mhc_streams=streams, **SMALL)
    logits = np.random.default_rng(1).standard_normal((4, {1: 1, 2: 9, 4: 40}[streams])).astype(np.float32)
    path = write_seed(tmp_path / "m.gguf", weights, logits if streams > 1 else None)
    with open_model(path) as model:
        ours = model.weights
        assert (ours.config.mhc_streams, ours.config.rope.style, ours.config.activation) == (streams, "neox", "silu")
        for name, tensor in weights.tensors.items():
            if ".mhc_" not in name:
                assert np.array_equal(ours.tensors[name].data, tensor.data)
        assert np.isfinite(forward(ours, [1, 2, 3])).all()


def test_seed_projects_streams_follow_its_formulas(tmp_path: Path) -> None:
    weights = fake_weights("nanochat-ternary", "Q1_58", head="F32", **SMALL)
    row = np.array([0.3, 0.1, -0.2, 0.5, 0.25, 1.0, -1.0, 0.5, 0.0], np.float32)
    path = write_seed(tmp_path / "m.gguf", weights, np.tile(row, (4, 1)))
    with open_model(path) as model:
        table = model.weights.tensors["blk.1.mhc_ffn.weight"].data.view(np.float32).reshape(4, 2)
    a = 1 / (1 + np.exp(-0.3))
    mix = np.array([[a, 1 - a], [1 - a, a]])
    read = 1 / (1 + np.exp(-np.array([0.1 + 0.5, -0.2 + 0.25])))
    post = 2 / (1 + np.exp(-np.array([1.0 + 0.5, -1.0 + 0.0])))
    np.testing.assert_allclose(table, [*mix, read, mix @ post], rtol=1e-6)


def test_seed_projects_side_file_must_be_there_and_fit(tmp_path: Path) -> None:
    weights = fake_weights("nanochat-ternary", "Q1_58", head="F32", **SMALL)
    path = write_seed(tmp_path / "m.gguf", weights)
    with pytest.raises(LoadError, match=r"m\.mhc: put it beside"):
        open_model(path)
    write_seed(path, weights, np.zeros((3, 9), np.float32))
    with pytest.raises(LoadError, match="124 bytes where 2 layers need 160"):
        open_model(path)
    write_seed(path, weights, np.full((4, 9), np.nan, np.float32))
    with pytest.raises(LoadError, match="not finite"):
        open_model(path)
    data = bytearray(path.with_suffix(".mhc").read_bytes())
    data[0] ^= 1
    path.with_suffix(".mhc").write_bytes(data)
    with pytest.raises(LoadError, match="header differs"):
        open_model(path)


def test_seed_projects_file_of_no_layers(tmp_path: Path) -> None:
    """Its side file is a sound header, and nothing behind it."""
    path = write_seed(tmp_path / "m.gguf", fake_weights("nanochat-ternary", "Q1_58", head="F32", **SMALL))
    key = b"nanochat.n_layers"
    data = bytearray(path.read_bytes())
    at = data.index(key) + len(key) + 4
    data[at : at + 4] = bytes(4)
    path.write_bytes(data)
    path.with_suffix(".mhc").write_bytes(struct.pack("<4I", 0x6D484321, 1, 0, 2))
    with pytest.raises(LoadError, match="nanochat.n_layers must be at least 1, not 0"):
        open_model(path)
