"""Tokenizers of every family: a folder, and the GGUF file made of it, give transformers' ids and texts."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from ternrun.errors import LoadError
from ternrun.loader.gguf.file import open_gguf
from ternrun.loader.gguf.write import write_gguf
from ternrun.loader.tokenizers.to_gguf import vocabulary_metadata
from ternrun.loader.tokenizers.tokenizer import Tokenizer
from tests.texts import HERE

FAMILIES: dict[str, Any] = json.loads(lzma.decompress((HERE / "tokenizer_matrix.json.xz").read_bytes()))["families"]
CARRIED = ("qwen2", "mistral", "phi3", "t5", "olmo", "added_later")  # GGUF's own keys cannot state all of these


def written(family: str, folder: Path) -> Path:
    for name, content in FAMILIES[family]["files"].items():
        (folder / name).write_text(json.dumps(content))
    return folder


def differences(tokenizer: Tokenizer, family: str) -> list[Any]:
    found: list[Any] = []
    for row in FAMILIES[family]["rows"]:
        text, ids = row["text"], row["ids"]
        if tokenizer.add_bos and ids[:2] == [tokenizer.bos_id] * 2:
            ids = ids[1:]  # a begin token that the text has is not doubled
        made = {
            "ids": tokenizer.encode(text, eos=True),
            "bare": tokenizer.encode(text, bos=False),
            "shown": tokenizer.decode(row["ids"], special=True),
            "hidden": tokenizer.decode(row["ids"]),
        }
        true = row | {"ids": ids}
        found += [(text, key, value, true[key]) for key, value in made.items() if value != true[key]]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_encodes_and_decodes_as_transformers_does(family: str, tmp_path: Path) -> None:
    assert differences(Tokenizer.from_hf(written(family, tmp_path)), family) == []


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "bert"])
def test_a_converted_file_encodes_and_decodes_as_transformers_does(family: str, tmp_path: Path) -> None:
    folder = written(family, tmp_path)
    metadata = vocabulary_metadata(folder, Tokenizer.from_hf(folder).vocab_size + 3)
    assert ("ternrun.tokenizer.json" in metadata) == (family in CARRIED)
    write_gguf(tmp_path / "vocabulary.gguf", metadata, [])
    assert differences(Tokenizer.from_gguf(open_gguf(tmp_path / "vocabulary.gguf").metadata), family) == []


def test_word_pieces_are_for_encoders_which_are_not_converted(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="of kind WordPiece"):
        vocabulary_metadata(written("bert", tmp_path), 1000)
