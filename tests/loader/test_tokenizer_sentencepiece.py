"""tokenizer.model alone: ids and texts as sentencepiece and transformers have them, and damaged files refused."""

from __future__ import annotations

import base64
import json
import lzma
import random
from pathlib import Path
from typing import Any

import pytest

from ternrun.errors import LoadError
from ternrun.loader.gguf.file import open_gguf
from ternrun.loader.gguf.write import write_gguf
from ternrun.loader.tokenizers.sentencepiece_model import read_sentencepiece
from ternrun.loader.tokenizers.to_gguf import vocabulary_metadata
from ternrun.loader.tokenizers.tokenizer import Tokenizer
from tests.texts import HERE

MODELS: dict[str, Any] = json.loads(lzma.decompress((HERE / "sentencepiece.json.xz").read_bytes()))["models"]
LLAMA = base64.b64decode(MODELS["llama"]["model"])


def written(name: str, folder: Path) -> Path:
    (folder / "tokenizer.model").write_bytes(base64.b64decode(MODELS[name]["model"]))
    (folder / "tokenizer_config.json").write_text(json.dumps(MODELS[name]["config"]))
    return folder


def differences(tokenizer: Tokenizer, name: str) -> list[Any]:
    found: list[Any] = []
    for row in MODELS[name]["plain"]:
        ids = tokenizer.encode(row["text"], special=False, bos=False)
        found += [("ids", row["text"], ids, row["ids"])] if ids != row["ids"] else []
        decoded = tokenizer.decode(row["ids"])
        found += [("text", decoded, row["decoded"])] if decoded != row["decoded"].replace(" \u2047 ", "") else []
    for row in MODELS[name]["special"]:
        ids = tokenizer.encode(row["text"], eos=True)
        true = row["ids"]  # begin and end tokens that the text has are not doubled
        true = true[1:] if tokenizer.add_bos and true[:2] == [tokenizer.bos_id] * 2 else true
        true = true[:-1] if tokenizer.add_eos and true[-2:] == [tokenizer.eos_id] * 2 else true
        found += [("special", row["text"], ids, true)] if ids != true else []
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_without_tokenizer_json_reads_tokenizer_model(name: str, tmp_path: Path) -> None:
    assert differences(Tokenizer.from_hf(written(name, tmp_path)), name) == []


@pytest.mark.parametrize("name", MODELS)
def test_it_is_carried_into_a_gguf_file(name: str, tmp_path: Path) -> None:
    metadata = vocabulary_metadata(written(name, tmp_path), 1000)
    assert len(metadata["tokenizer.ggml.tokens"]) == 1000
    write_gguf(tmp_path / "vocabulary.gguf", metadata, [])
    assert differences(Tokenizer.from_gguf(open_gguf(tmp_path / "vocabulary.gguf").metadata), name) == []


FAULTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it has no pieces"),
    "cut": (LLAMA[:-100], "a field of"),
    "text": (b"IQ== 0\nIg== 1\n", "is not a SentencePiece model"),  # tiktoken's form
    "tag alone": (b"\x0a", "is not a SentencePiece model"),
    "endless number": (b"\xff" * 40, "a number of more than ten bytes"),
    "group": (b"\x0b", "wire type 3"),
    "number for a piece": (b"\x08\x01", "a number stands where a message should"),
    "no text": (b"\x0a\x03\x0a\x01\xff", "can't decode byte"),
    "type 99": (b"\x0a\x02\x18\x63", "a piece has type 99"),
    "score": (b"\x0a\x05\x15\x00\x00\xc0\x7f", "not finite"),
    "words": (LLAMA + b"\x12\x02\x18\x03", "of kind word; unigram and bpe are supported"),
    "suffix": (LLAMA + b"\x12\x03\xc0\x01\x01", "puts spaces behind words"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_damaged_models_are_refused(name: str, tmp_path: Path) -> None:
    data, message = FAULTS[name]
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(LoadError, match=f"tokenizer.model .*{message}"):
        Tokenizer.from_hf(tmp_path)


def test_mutated_models_do_no_harm(tmp_path: Path) -> None:
    rng, path = random.Random(7), tmp_path / "tokenizer.model"
    for _ in range(150):
        data = bytearray(base64.b64decode(MODELS[rng.choice(list(MODELS))]["model"]))
        for _ in range(rng.randrange(1, 12)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            tokenizer = Tokenizer.from_hf(tmp_path)
        except LoadError:
            continue
        assert all(0 <= i < tokenizer.vocab_size for i in tokenizer.encode("Hello \ufb01 <tool> 日本"))


def test_tokenizer_json_comes_first(tmp_path: Path) -> None:
    written("llama", tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(LoadError, match=r"tokenizer\.json"):
        Tokenizer.from_hf(tmp_path)
    assert read_sentencepiece(tmp_path / "tokenizer.model").kind == "bpe"
