"""Tokenizers that an exported file could not say, and text that a vocabulary has no tokens for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ternrun.errors import LoadError, UsageError
from ternrun.loader.default_model import located
from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.data.document import Document
from ternrun.train.data.options import PrepareOptions
from ternrun.train.data.prepare import prepare
from ternrun.train.data.tokenizer_check import check_coverage

TEXT = "".join(f"def name_{i}(x):\n    return {i}\n" for i in range(30))


def changed(change: Callable[[Tokenizer], object]) -> Tokenizer:
    made = tokenizers.train_bpe([TEXT], 300)
    change(made)
    return made


def unigram(_: Tokenizer) -> Tokenizer:
    made = Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], None, False))
    made.add_special_tokens([tokenizers.END])
    return made


def with_gap(made: Tokenizer) -> Tokenizer:
    vocabulary = {token: i + (i > 100) for token, i in made.get_vocab().items()}
    gap = Tokenizer(models.BPE(vocabulary, []))
    gap.pre_tokenizer, gap.decoder = made.pre_tokenizer, made.decoder
    gap.add_special_tokens([tokenizers.END])
    return gap


SPLIT = pre_tokenizers.Split(Regex(r"\p{N}| ?\p{L}+|\s+"), "isolated")
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: setattr(t, "normalizer", normalizers.NFC()), "normalizer"),
        (lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Sequence([SPLIT, BYTES])), "pre_tokenizer"),
        (lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)), "pre_tokenizer"),
        (lambda t: setattr(t, "pre_tokenizer", None), "pre_tokenizer"),
        (lambda t: setattr(t, "decoder", decoders.BPEDecoder()), "decoder"),
        (lambda t: setattr(t.model, "dropout", 0.1), "dropout"),
        (lambda t: t.add_tokens(["<word>"]), "not all special"),
        (lambda t: t.add_special_tokens([AddedToken("<mask>", lstrip=True)]), "strip white space"),
    ],
)
def test_what_no_file_could_say_is_refused(change: Callable[[Tokenizer], object], fault: str, tmp_path: Path) -> None:
    changed(change).save(str(tmp_path / "t.json"))
    with pytest.raises(LoadError, match=f"t.json cannot be stored in a GGUF file: .*{fault}"):
        tokenizers.load(tmp_path / "t.json")


@pytest.mark.parametrize(("make", "fault"), [(unigram, "Unigram, not BPE"), (with_gap, "its ids have gaps")])
def test_other_models_and_vocabularies_are_refused(
    make: Callable[[Tokenizer], Tokenizer], fault: str, tmp_path: Path
) -> None:
    make(changed(lambda _: None)).save(str(tmp_path / "t.json"))
    with pytest.raises(LoadError, match=fault):
        tokenizers.load(tmp_path / "t.json")


def test_those_made_here_and_gpt2_s_as_published_are_not(tmp_path: Path) -> None:
    published = tokenizers.char_level([TEXT])
    published.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    published.post_processor = processors.ByteLevel(trim_offsets=False)
    published.enable_truncation(3)
    published.enable_padding(length=5)
    for made in (tokenizers.char_level([TEXT]), changed(lambda _: None), published):
        made.save(str(tmp_path / "t.json"))
        loaded = tokenizers.load(tmp_path / "t.json")
        assert loaded.decode(loaded.encode(TEXT).ids) == TEXT
    assert tokenizers.load(located(None)).get_vocab_size() == 4096


def test_text_without_tokens_is_refused_and_its_first_character_named(tmp_path: Path) -> None:
    tokenizers.char_level(["abc é\n"]).save(str(tmp_path / "t.json"))
    plan = PrepareOptions(tokenizer=str(tmp_path / "t.json"), split="tail", val_share=0.1)
    with pytest.raises(UsageError, match="no token for 'd', which is in the text"):
        prepare([Document("t", "t", "x", "abc" * 40 + "d€")], tmp_path / "d", plan, lambda _: None)
    assert not (tmp_path / "d").exists()
    prepare([Document("t", "t", "x", "cab é" * 40)], tmp_path / "d", plan, lambda _: None)
    with pytest.raises(UsageError, match="no token for 'è'"):
        check_coverage(tokenizers.load(tmp_path / "t.json"), ["é", "éè"])
    check_coverage(changed(lambda _: None), ["€✓"])
