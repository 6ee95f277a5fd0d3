"""The text side of models whose files are well-formed but lie: a tokenizer, or one of our sentences."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from ternrun.errors import LoadError, UsageError
from ternrun.loader.gguf.file import open_gguf, write_gguf
from ternrun.loader.model import open_model
from ternrun.loader.tokenizers.to_gguf import chat_metadata
from ternrun.loader.tokenizers.tokenizer import Tokenizer
from tests.fakes import fake_gguf, fake_weights
from tests.fakes_hf import fake_hf
from tests.loader.test_load_fuzz import HF_VALUES, SMALL, VALUES

TEXT = "Hello <|eos|> wörld"
KEYS = [f"tokenizer.ggml.{key}" for key in (
    "model", "pre", "tokens", "token_type", "scores", "merges", "bos_token_id", "eos_token_id", "eot_token_id",
    "unknown_token_id", "fim_pre_token_id", "fim_rep_token_id", "add_bos_token", "add_space_prefix",
)] + ["tokenizer.chat_template", "general.sampling.temp"]  # fmt: skip


def told(error: LoadError | UsageError) -> str:
    assert 0 < len(str(error)) < 500
    return str(error)


def test_lies_in_the_metadata_of_a_vocabulary(tmp_path: Path) -> None:
    path = fake_gguf(tmp_path / "m.gguf", fake_weights("llama", "F32", **SMALL))
    faults = set()
    with open_model(path) as model:
        whole = dict(model.metadata)
        for key in KEYS:
            for value in VALUES:
                model.metadata, model._tokenizer = whole | {key: value}, None
                try:
                    model.tokenizer.encode(TEXT)
                    _ = model.chat_template, model.sampling
                except LoadError as e:
                    faults.add(told(e))
    assert len(faults) > 100


def test_lies_about_the_parts_of_a_split_model(tmp_path: Path) -> None:
    whole = open_gguf(fake_gguf(tmp_path / "m.gguf", fake_weights("llama", "F32", **SMALL)))
    faults = set()
    for key in ("split.no", "split.count", "split.tensors.count"):
        for value in VALUES:
            try:
                write_gguf(tmp_path / "n.gguf", {**whole.metadata, key: value}, list(whole.tensors.values()))
                open_gguf(tmp_path / "n.gguf")
            except (LoadError, UsageError) as e:  # or what GGUF cannot hold at all
                faults.add(told(e))
    assert len(faults) > 30


def places(node: Any) -> list[tuple[Any, Any]]:
    """Everything within a JSON value, as (container, key)."""
    keys = list(node) if isinstance(node, dict) else range(min(len(node), 4)) if isinstance(node, list) else ()
    own = [(node, key) for key in keys]
    return own + [place for _, key in own if key != "vocab" for place in places(node[key])]


def test_lies_in_tokenizer_json(tmp_path: Path) -> None:
    folder = fake_hf(tmp_path / "m", fake_weights("llama", "F32", **SMALL))
    whole = json.loads((folder / "tokenizer.json").read_text())
    values = [*(v for v in HF_VALUES if not isinstance(v, float) or np.isfinite(v)), whole["decoder"]]
    whole["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [whole["pre_tokenizer"]]}
    whole["decoder"] = {"type": "Sequence", "decoders": [whole["decoder"]]}
    rng, faults = Random(3), set()
    for _ in range(600):
        description = copy.deepcopy(whole)
        for _ in range(rng.choice((1, 1, 2))):
            container, key = rng.choice(places(description))
            container[key] = copy.deepcopy(rng.choice(values))
        (folder / "tokenizer.json").write_text(json.dumps(description))
        try:
            Tokenizer.from_hf(folder).encode(TEXT)
        except LoadError as e:
            faults.add(told(e))
    assert len(faults) > 20


def test_an_added_token_with_two_ids(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = fake_hf(tmp_path / "m", fake_weights("llama", "F32", **SMALL))
    description = json.loads((folder / "tokenizer.json").read_text())
    description["added_tokens"].insert(0, description["added_tokens"][0] | {"id": 100_000})
    (folder / "tokenizer.json").write_text(json.dumps(description))
    assert Tokenizer.from_hf(folder).encode("<|bos|>", bos=False) == [256]
    assert "added token '<|bos|>' has id 256; id 100000, which is stated for it, is ignored" in caplog.text


def test_lies_in_tokenizer_config_json(tmp_path: Path) -> None:
    folder = fake_hf(tmp_path / "m", fake_weights("llama", "F32", **SMALL))
    values = [*HF_VALUES, {"content": ["x"]}, [{"name": ["a"], "template": "x"}], [{"name": {}}]]
    for key in ("chat_template", "bos_token", "eos_token"):
        for value in values:
            (folder / "tokenizer_config.json").write_text(json.dumps({key: value}))
            try:
                chat_metadata(folder)
                Tokenizer.from_hf(folder)
            except LoadError as e:
                told(e)
