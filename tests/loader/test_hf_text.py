"""Vocabularies of Hugging Face folders, carried into GGUF's keys: the same ids, or a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ternrun.errors import LoadError
from ternrun.loader.tokenizers.pretokenizers import PRETOKENIZERS
from ternrun.loader.tokenizers.to_gguf import chat_metadata, vocabulary_metadata
from ternrun.loader.tokenizers.tokenizer import Tokenizer as Ours

TEXT = [
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)  # 123456789\n",
    "It's a truth universally acknowledged, that HE'LL want naïve wives in 1813.   Isn't it?\n\n\tYes!!! ... no",
    "日本語のテキスト и русский текст, 🙂🙂 (x=[1,22,333,4444])",
]


def byte_level(name: str, size: int = 600) -> Tokenizer:
    row = PRETOKENIZERS[name]
    tokenizer = Tokenizer(models.BPE(ignore_merges=row.ignore_merges))
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in row.patterns]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken("<|bos|>", special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, **config: Any) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "qwen2", "smollm", "deepseek-coder", "tekken"])
@pytest.mark.parametrize("bos", [False, True])
def test_byte_level_vocabularies_find_their_pre_tokenizer(name: str, bos: bool, tmp_path: Path) -> None:
    tokenizer = byte_level(name)
    if bos:
        first = ("<|bos|>", tokenizer.token_to_id("<|bos|>"))
        tokenizer.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[first])
    folder = save(tokenizer, tmp_path, bos_token="<|bos|>")
    size = tokenizer.get_vocab_size() + 7  # an embedding padded beyond the vocabulary
    metadata = vocabulary_metadata(folder, size)
    assert len(metadata["tokenizer.ggml.tokens"]) == len(metadata["tokenizer.ggml.token_type"]) == size
    carried, original = Ours.from_gguf(metadata), Ours.from_hf(folder)
    for text in [*TEXT, "a<|bos|>a <tool> b", "  spaces  and\n\n\nlines", ""]:
        ids = carried.encode(text)
        assert ids == original.encode(text) == tokenizer.encode(text).ids
        assert carried.decode(ids) == original.decode(ids)


def test_sentence_piece_vocabularies_with_byte_fallback(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    fallback = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>", "<s>", "</s>", *fallback], show_progress=False
    )
    tokenizer.train_from_iterator([word for text in TEXT for word in text.split()], trainer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["id"] < 3]  # bytes are ordinary tokens
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    metadata = vocabulary_metadata(tmp_path, len(data["model"]["vocab"]))
    assert metadata["tokenizer.ggml.model"] == "llama"
    carried, original = Ours.from_gguf(metadata), Ours.from_hf(tmp_path)
    for text in ["It's a truth", "fibonacci return", "日本 🚀 unseen ½", "a  b"]:
        assert carried.encode(text) == original.encode(text)


PECULIAR: dict[str, tuple[Callable[[Tokenizer], object], str]] = {
    "words": (
        lambda t: setattr(
            t, "pre_tokenizer",
            pre_tokenizers.Sequence(
                [pre_tokenizers.Split(Regex("e"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
            ),
        ),
        "the way in which tokenizer.json splits text",
    ),
    "nfc": (lambda t: setattr(t, "normalizer", normalizers.NFC()), "the normalizer NFC"),
    "lowercase": (
        lambda t: setattr(t, "normalizer", normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
        "the normalizer NFKC and the normalizer Lowercase",
    ),
    "strip": (lambda t: t.add_tokens([AddedToken("<mask>", lstrip=True, rstrip=True)]), "lstrip, rstrip, norm"),
    "whole words": (
        lambda t: (setattr(t, "normalizer", normalizers.NFC()), setattr(t.model, "ignore_merges", True)),
        "the normalizer NFC",
    ),
    "word": (lambda t: t.add_special_tokens([AddedToken("NOW", single_word=True)]), "single_word of added tokens"),
}  # fmt: skip


@pytest.mark.parametrize("name", PECULIAR)
def test_what_gguf_cannot_say_is_carried_beside_it(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    change, words = PECULIAR[name]
    tokenizer = byte_level("gpt-2")
    change(tokenizer)
    folder = save(tokenizer, tmp_path, bos_token="<|bos|>")
    metadata = vocabulary_metadata(folder, 700)
    assert f"GGUF's keys cannot state {words}" in caplog.text
    assert len(metadata["ternrun.tokenizer.json"]) < 5000  # the vocabulary is in the keys that other programs read
    carried, original = Ours.from_gguf(metadata), Ours.from_hf(folder, 700)
    for text in ["cafe\u0301 ÉTÉ", "a  <mask>  b<mask>", "NOW nowNOW NOWx", *TEXT]:
        assert carried.encode(text) == original.encode(text) == tokenizer.encode(text).ids
        assert carried.encode(text, special=False) == original.encode(text, special=False)
        assert carried.decode(carried.encode(text)) == original.decode(original.encode(text))
    assert carried.eos_ids == original.eos_ids
    assert Ours.from_gguf(metadata, pre="gpt-2").encode("ab")  # what --pre asks for takes its place


def test_a_damaged_carried_tokenizer_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-2")
    tokenizer.normalizer = normalizers.NFC()
    metadata = vocabulary_metadata(save(tokenizer, tmp_path), 700)
    for value in (7, "", "[]", "{}", '{"model": 7}', '{"model": {"vocab": {}}}', "[" * 100_000):
        with pytest.raises(LoadError, match=r"ternrun\.tokenizer\.json"):
            Ours.from_gguf(metadata | {"ternrun.tokenizer.json": value})
    for value in (["a"], [700], [-1], 7, [[1]]):
        with pytest.raises(LoadError, match=r"ternrun\.tokenizer\.end_token_ids must list ids"):
            Ours.from_gguf(metadata | {"ternrun.tokenizer.end_token_ids": value})


def test_every_token_that_ends_generation_is_carried(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-2")
    folder = save(tokenizer, tmp_path, eos_token="<|bos|>")
    (folder / "generation_config.json").write_text('{"eos_token_id": [65, 66]}')
    metadata = vocabulary_metadata(folder, 700)
    assert Ours.from_gguf(metadata).eos_ids == {65, 66, tokenizer.token_to_id("<|bos|>")}


def test_kinds_that_a_gguf_file_cannot_hold_are_refused(tmp_path: Path) -> None:
    folder = save(byte_level("gpt-2"), tmp_path)
    with pytest.raises(LoadError, match=r"has id \d+ of 300"):
        vocabulary_metadata(folder, 300)
    (folder / "tokenizer.json").write_text('{"model": {"type": "WordPiece", "vocab": {}}}')
    with pytest.raises(LoadError, match="of kind WordPiece; a GGUF file can only carry BPE and Unigram"):
        vocabulary_metadata(folder, 300)


def test_chat_template_from_either_file(tmp_path: Path) -> None:
    assert chat_metadata(tmp_path) == {}
    config = tmp_path / "tokenizer_config.json"
    config.write_text(
        json.dumps({"chat_template": [{"name": "tool", "template": "T"}, {"name": "default", "template": "D"}]})
    )
    assert chat_metadata(tmp_path) == {"tokenizer.chat_template": "D"}
    config.write_text(json.dumps({"chat_template": [{"name": ["default"], "template": "L"}, 5, {"name": {}}]}))
    assert chat_metadata(tmp_path) == {}
    config.write_text(json.dumps({"chat_template": "S"}))
    assert chat_metadata(tmp_path) == {"tokenizer.chat_template": "S"}
    (tmp_path / "chat_template.jinja").write_text("J")
    assert chat_metadata(tmp_path) == {"tokenizer.chat_template": "J"}
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(LoadError, match=r"chat_template\.jinja cannot be read"):
        chat_metadata(tmp_path)
