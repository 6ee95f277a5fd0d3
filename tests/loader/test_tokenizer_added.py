"""Tokens that only the files beside tokenizer.json state, merged as transformers 5.24 merges them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from ternrun.errors import LoadError
from ternrun.loader.tokenizers.tokenizer import Tokenizer as Ours

END = 256  # <|endoftext|>, the one token that tokenizer.json lists itself
FLAGS = {"lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
Files = dict[str, dict[str, Any]]

# files, ids of special and of other added tokens, begin and end token: what transformers' from_pretrained gives
CASES: dict[str, tuple[Files, dict[str, int], dict[str, int], tuple[int | None, int | None]]] = {
    "added": ({"added_tokens.json": {"<x>": 257, "<y>": 258}}, {}, {"<x>": 257, "<y>": 258}, (None, None)),
    "added and named": (
        {"added_tokens.json": {"<x>": 257, "<y>": 258},
         "special_tokens_map.json": {"bos_token": "<x>", "eos_token": FLAGS | {"content": "<y>"},
                                     "additional_special_tokens": ["<z>"]}},
        {"<x>": 257, "<y>": 258, "<z>": 259}, {}, (257, 258),
    ),
    "map over config": (
        {"tokenizer_config.json": {"bos_token": "<|endoftext|>"},
         "special_tokens_map.json": {"bos_token": "<x>", "pad_token": "<y>"}},
        {"<x>": 257, "<y>": 258}, {}, (257, None),
    ),
    "decoder hides map": (
        {"tokenizer_config.json": {"bos_token": "<|endoftext|>",
                                   "added_tokens_decoder": {"257": {"content": "<z>", "special": True}}},
         "special_tokens_map.json": {"bos_token": "<x>", "pad_token": "<y>"}},
        {"<z>": 257}, {}, (END, None),
    ),
    "extra": (
        {"tokenizer_config.json": {"additional_special_tokens": ["<z>"], "extra_special_tokens": ["<y>"]}},
        {"<y>": 257}, {}, (None, None),
    ),
    "extra by name": (
        {"tokenizer_config.json": {"extra_special_tokens": {"image_token": "<y>"}}}, {"<y>": 257}, {}, (None, None),
    ),
    "an id that is taken": (
        {"tokenizer_config.json": {"added_tokens_decoder": {"3": {"content": "<y>"}}}}, {}, {"<y>": 257}, (None, None),
    ),
    "in the vocabulary": ({"tokenizer_config.json": {"bos_token": "a"}}, {"a": 64}, {}, (64, None)),
}  # fmt: skip


def folder(path: Path, files: Files) -> Path:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    library.pre_tokenizer, library.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    library.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    library.save(str(path / "tokenizer.json"))
    for name, content in files.items():
        (path / name).write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", CASES)
def test_tokens_of_all_files_count(name: str, tmp_path: Path) -> None:
    files, special, others, ends = CASES[name]
    ours = Ours.from_hf(folder(tmp_path, files))
    assert ours.hidden_ids == {END, *special.values()}
    assert ours.special_ids == {END, *special.values(), *others.values()}
    for text, token in (special | others).items():
        assert ours.encode(f"({text})", bos=False)[1] == token
    assert (ours.bos_id, ours.eos_id) == ends


def test_flags_of_the_configuration_win(tmp_path: Path) -> None:
    decoder = {str(END): FLAGS | {"content": "<|endoftext|>", "special": False}}
    ours = Ours.from_hf(folder(tmp_path, {"tokenizer_config.json": {"added_tokens_decoder": decoder}}))
    assert ours.hidden_ids == set()
    assert ours.encode("x  <|endoftext|> y") == [*ours.encode("x"), END, *ours.encode(" y")]


def test_tokens_beyond_the_embedding_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder(tmp_path, {"tokenizer_config.json": {"pad_token": "[PAD]"}})
    assert Ours.from_hf(path, 257).vocab_size == 257
    assert "1 added tokens are left out: the embedding has only 257 rows ('[PAD]' with id 257)" in caplog.text
    assert Ours.from_hf(path).encode("[PAD]") == [257]


VALUES: tuple[Any, ...] = (
    None, 7, -1, "", "x", [], [7], [None], ["x", {"content": 7}], {}, {"x": 7}, {"-1": {"content": "q"}}, {"7": "q"},
    {"99999999999999999999": {"content": "q"}}, {"9999999": {"content": "q"}}, {"٣": {"content": "q"}},
    {"300": {"content": "q", "special": "yes", "lstrip": 7}}, {"300": {"content": ""}}, {"300": {"content": ["q"]}},
)  # fmt: skip


@pytest.mark.parametrize(
    "key", ["added_tokens_decoder", "extra_special_tokens", "additional_special_tokens", "bos_token"]
)
def test_lies_do_no_harm(key: str, tmp_path: Path) -> None:
    for value in VALUES:
        for files in ({"tokenizer_config.json": {key: value}}, {"special_tokens_map.json": {key: value}}):
            for name in ("tokenizer_config.json", "special_tokens_map.json"):
                (tmp_path / name).unlink(missing_ok=True)
            try:
                ours = Ours.from_hf(folder(tmp_path, files))
            except LoadError:
                continue
            assert ours.decode(ours.encode("a q <|endoftext|>"), special=True) == "a q <|endoftext|>"


@pytest.mark.parametrize("content", [{"x": "y"}, {"x": -1}, {"": 300}, {"x": 10**12}, {"x": None}])
def test_lies_in_added_tokens_json(content: Any, tmp_path: Path) -> None:
    assert Ours.from_hf(folder(tmp_path, {"added_tokens.json": content})).encode("x")[0] < 300


@pytest.mark.parametrize("content", [[], 7, "x"])
def test_added_tokens_json_must_be_a_table(content: Any, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"added_tokens\.json"):
        Ours.from_hf(folder(tmp_path, {"added_tokens.json": content}))
