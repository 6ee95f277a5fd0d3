"""Embeddings over HTTP, against hidden states computed beside the server."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from ternrun.api import load
from ternrun.runtime.config import Pooling, SamplingParams
from ternrun.runtime.engine.request import Request
from ternrun.server.generation.embeddings import unit
from ternrun.server.settings import ServerConfig
from tests.fakes import fake_gguf, fake_weights
from tests.server.serving import Server, running

TEXTS = ["Hello", "Once upon a time", "x" * 300]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its file says mean."""
    path = fake_gguf(tmp_path_factory.mktemp("m") / "e.gguf", fake_weights("llama", pooling="mean"), general__name="e")
    with running(ServerConfig(port=0), lambda: load(path, threads=1)) as server:
        yield server


@pytest.fixture(scope="module")
def bare(path: Path) -> Iterator[Server]:
    """Its file says nothing, the command line none."""
    with running(ServerConfig(port=0, pooling="none"), lambda: load(path, threads=1)) as server:
        yield server


def states(server: Server, text: str, pooling: Pooling = "none") -> NDArray[np.float64]:
    ids = server.model.tokenizer.encode(text)
    (output,) = server.model.driver.outputs(Request(ids, SamplingParams(max_tokens=0), pooling=pooling))
    assert output.embedding is not None
    return output.embedding.astype(np.float64)


def test_openai(embedder: Server) -> None:
    answer = embedder.ask("/v1/embeddings", {"input": TEXTS}).json
    assert [entry["index"] for entry in answer["data"]] == [0, 1, 2]
    assert answer["usage"] == {"prompt_tokens": 321, "total_tokens": 321}
    for text, entry in zip(TEXTS, answer["data"], strict=True):
        mean = states(embedder, text).mean(axis=0)
        np.testing.assert_allclose(entry["embedding"], mean / np.linalg.norm(mean), atol=1e-6)
    encoded = embedder.ask("/v1/embeddings", {"input": TEXTS[1], "encoding_format": "base64"}).json["data"][0]
    held = np.frombuffer(base64.b64decode(encoded["embedding"]), "<f4")
    assert held.tolist() == np.float32(answer["data"][1]["embedding"]).tolist(), "alone and in a list it is the same"
    ids = embedder.model.tokenizer.encode(TEXTS[1])
    assert (
        embedder.ask("/v1/embeddings", {"input": [ids, ids]}).json["data"][1]["embedding"]
        == answer["data"][1]["embedding"]
    )


def test_llama(embedder: Server, bare: Server) -> None:
    (raw,) = embedder.ask("/embedding", {"content": "Hello", "embd_normalize": -1}).json
    np.testing.assert_allclose(raw["embedding"], [states(embedder, "Hello").mean(axis=0)], atol=1e-6)
    (one,) = embedder.ask("/embeddings", {"input": ["Hello"]}).json
    assert np.linalg.norm(one["embedding"][0]) == pytest.approx(1)
    (every,) = bare.ask("/embedding", {"content": "Hello"}).json
    np.testing.assert_allclose(every["embedding"], states(bare, "Hello"), atol=1e-6)


def test_ollama(embedder: Server) -> None:
    answer = embedder.ask("/api/embed", {"model": "e", "input": ["Hello", "you " * 1000]}).json
    assert answer["prompt_eval_count"] == 5 + 512
    assert [len(vector) for vector in answer["embeddings"]] == [256, 256]
    refused = embedder.ask("/api/embed", {"input": "you " * 1000, "truncate": False})
    assert refused.status == 400
    assert "context holds 512" in refused.json["error"]


def test_the_official_client(embedder: Server) -> None:
    with openai.OpenAI(base_url=f"{embedder.url}/v1", api_key="none", max_retries=0) as client:
        done = client.embeddings.create(model="e", input=TEXTS)
    assert len(done.data) == 3
    assert np.linalg.norm(done.data[0].embedding) == pytest.approx(1)
    mean = states(embedder, TEXTS[0]).mean(axis=0)
    np.testing.assert_allclose(done.data[0].embedding, mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "input: it is missing"),
        ({"input": []}, "input: must be a string"),
        ({"input": ""}, "the prompt is empty"),
        ({"input": [[]]}, "input: must be a string"),
        ({"input": [999]}, "is not a token id"),
        ({"input": ["a"] * 3000}, "at most 2048"),
        ({"input": "a", "dimensions": 8}, "have 256"),
        ({"input": "a", "encoding_format": "int8"}, "float or base64"),
        ({"input": "x" * 600}, "context holds 512"),
    ],
)
def test_what_cannot_be(embedder: Server, fields: dict[str, Any], says: str) -> None:
    answer = embedder.ask("/v1/embeddings", fields)
    assert answer.status == 400
    assert says in answer.json["error"]["message"]


def test_a_file_that_names_no_pooling(server: Server, bare: Server) -> None:
    for it in (server, bare):
        answer = it.ask("/v1/embeddings", {"input": "a"})
        assert answer.status == 400
        assert "--pooling mean" in answer.json["error"]["message"]


def test_too_many_numbers(bare: Server) -> None:
    answer = bare.ask("/embedding", {"input": ["x" * 500] * 40})
    assert answer.status == 400
    assert "numbers at most" in answer.json["error"]["message"]


SIZES = [(2, np.linalg.norm), (1, lambda v: np.abs(v).sum()), (0, lambda v: np.abs(v).max() / 32760)]


@pytest.mark.parametrize(("norm", "size"), SIZES)
def test_norms(norm: int, size: Any) -> None:
    vector = np.float32([3, -4, 0])
    assert size(unit(vector, norm)) == pytest.approx(1)
    assert unit(np.zeros(3, np.float32), norm).tolist() == [0, 0, 0]
    assert unit(vector, -1) is vector


def test_many_at_once_and_other_work(embedder: Server) -> None:
    answer = embedder.ask("/v1/embeddings", {"input": [f"text {i}" for i in range(200)]})
    assert len(answer.json["data"]) == 200
