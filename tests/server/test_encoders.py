"""A sentence encoder in ONNX behind the embedding routes, against the same encoder in Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ternrun import Encoder, LoadError, UsageError, load
from ternrun.server.settings import ServerConfig
from tests.onnx.bert import tiny_folder
from tests.server.serving import Server, running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("encoder") / "tiny-bert")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with running(ServerConfig(port=0), lambda: load(folder, max_batch=8)) as server:
        yield server


def test_openai(server: Server, folder: Path) -> None:
    texts = ["a cat", "on the mat " * 7, "x", *("word " * i for i in range(1, 15))]
    answer = server.ask("/v1/embeddings", {"input": texts}).json
    vectors, tokens = Encoder(folder).embed(texts)
    assert answer["model"] == "tiny-bert"
    assert answer["usage"]["prompt_tokens"] == tokens
    np.testing.assert_allclose([d["embedding"] for d in answer["data"]], vectors, atol=1e-5)


def test_other_routes(server: Server, folder: Path) -> None:
    expected = Encoder(folder).embed(["hello"])[0]
    np.testing.assert_allclose(server.ask("/api/embed", {"input": "hello"}).json["embeddings"], expected, atol=1e-5)
    refused = server.ask("/v1/completions", {"prompt": "hello"})
    assert refused.status == 400
    assert "gives embeddings only" in refused.json["error"]["message"]
    too_long = server.ask("/v1/embeddings", {"input": "a " * 100})
    assert too_long.json["error"]["code"] == "context_length_exceeded"


def test_a_text_that_is_cut_still_has_its_end(server: Server, folder: Path) -> None:
    encoder, text = Encoder(folder), "a cat on the mat " * 20
    expected, tokens = encoder.embed([text], truncate=True)
    assert tokens == encoder.context
    answer = server.ask("/api/embed", {"input": text}).json
    assert answer["prompt_eval_count"] == tokens
    np.testing.assert_allclose(answer["embeddings"], expected, atol=1e-5)
    ids = encoder.tokens(text)
    answer = server.ask("/api/embed", {"input": [ids]}).json
    np.testing.assert_allclose(answer["embeddings"], encoder.embed_ids([ids[: encoder.context]])[0], atol=1e-5)


def test_from_python(folder: Path, tmp_path: Path) -> None:
    with load(folder / "model.onnx") as model:
        assert model.tokenizer.decode(model.tokenizer.encode("ab cd")) == "ab cd"
        assert model.tokenizer.encode("ab", eos=True) == Encoder(folder).tokens("ab")
        with pytest.raises(UsageError, match="gives embeddings only"):
            model.complete("hello")
    with pytest.raises(LoadError, match="pools by max, which ternrun.Encoder does"):
        load(tiny_folder(tmp_path / "other", "pooling_mode_max_tokens"))
    with pytest.raises(UsageError, match="leave out --pre"):
        load(folder, pre="gpt2")
