"""Rules of GGUF vocabularies that no reference text shows: special tokens, byte fallback, streaming, damaged data."""

from __future__ import annotations

import random
import re
import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ternrun.errors import LoadError, UsageError
from ternrun.loader.gguf.file import open_gguf
from ternrun.loader.tokenizers.bpe import MergeEncoder, merge
from ternrun.loader.tokenizers.token_bytes import ALPHABET, BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED
from ternrun.loader.tokenizers.tokenizer import Tokenizer
from tests.smollm2 import smollm2
from tests.texts import texts

BYTES = [f"<0x{b:02X}>" for b in range(256)]


def sentencepiece(**changes: Any) -> dict[str, Any]:
    """A tiny `llama` vocabulary: three control tokens, all bytes, a few words."""
    words = {"▁": -9, "a": -10, "b": -11, "c": -12, "▁a": -1, "bc": -2, "▁ab": -3, "▁a bc": -30, "▁▁": -4}
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *words, "<user>"]
    metadata = {
        "model": "llama",
        "tokens": tokens,
        "token_type": [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(words) + [USER_DEFINED],
        "scores": [0.0] * 259 + [float(s) for s in words.values()] + [0.0],
    }
    return {f"tokenizer.ggml.{k}": v for k, v in (metadata | changes).items() if v is not None}


def byte_level(**changes: Any) -> dict[str, Any]:
    """A tiny `gpt2` vocabulary: all bytes, a few merges, two control tokens."""
    merges = ["a b", "Ġ ab", "ab c", "Ã ©"]
    tokens = [*ALPHABET.values(), *(m.replace(" ", "") for m in merges), "<|im_start|>", "<|im_end|>", "<tool>"]
    types = [NORMAL] * 260 + [CONTROL, CONTROL, USER_DEFINED]
    metadata = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "merges": merges, "token_type": types}
    return {f"tokenizer.ggml.{k}": v for k, v in (metadata | changes).items() if v is not None}


def pieces(tokenizer: Tokenizer, text: str, **options: Any) -> list[str]:
    return tokenizer.pieces(tokenizer.encode(text, **options))


def slow_merge(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    while True:
        pairs = [(ranks[p], i) for i, p in enumerate(pairwise(symbols)) if p in ranks]
        if not pairs:
            return symbols
        i = min(pairs)[1]
        symbols = [*symbols[:i], symbols[i] + symbols[i + 1], *symbols[i + 2 :]]


def test_merging_equals_the_definition() -> None:
    rng = random.Random(1)
    for _ in range(300):
        parts = ["a", "b", "c"]
        for _ in range(12):
            parts.append(rng.choice(parts) + rng.choice(parts))
        ranks = {(x, y): rng.randrange(20) for x in parts for y in parts if x + y in parts and rng.random() < 0.7}
        word = [rng.choice("abc") for _ in range(rng.randrange(1, 24))]
        assert merge(list(word), lambda x, y, r=ranks: r.get((x, y))) == slow_merge(word, ranks)


def test_special_tokens_only_where_asked_for() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level())
    assert pieces(tokenizer, "<|im_start|>ab<|im_end|>") == ["<|im_start|>", "ab", "<|im_end|>"]
    assert "<|im_end|>" not in pieces(tokenizer, "x<|im_end|>", special=False)
    assert pieces(tokenizer, "a<tool>b", special=False) == ["a", "<tool>", "b"]  # user-defined: part of the text
    assert pieces(Tokenizer.from_gguf(sentencepiece()), "</s>", special=False) == ["<s>", " ", *"</s>"]


def test_longest_special_token_wins() -> None:
    metadata = byte_level(
        tokens=[*ALPHABET.values(), "<|a", "<|a|>", "<~", "<|"], token_type=[1] * 256 + [4] * 4, merges=[]
    )
    tokenizer = Tokenizer.from_gguf(metadata)
    assert pieces(tokenizer, "x<|a|><|b<|a<~<") == ["x", "<|a|>", "<|", "b", "<|a", "<~", "<"]


def test_space_prefix() -> None:
    tokenizer = Tokenizer.from_gguf(sentencepiece())
    assert pieces(tokenizer, "a bc") == ["<s>", " a", " ", "bc"]
    assert pieces(tokenizer, "a<s>a") == ["<s>", " a", "<s>", " a"]
    assert tokenizer.encode("") == [1]
    plain = Tokenizer.from_gguf(sentencepiece(add_space_prefix=False, add_bos_token=False))
    assert pieces(plain, "a bc") == ["a", " ", "bc"]
    for each in (tokenizer, plain):
        for text in ("a bc", " a", "  a", "", " ", "é\n🙂"):
            assert each.decode(each.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode("a<user> a")) == "a<user>  a"  # as llama.cpp and transformers have it
    assert plain.decode(plain.encode("a<user> a")) == "a<user> a"


def test_only_the_space_that_opens_a_text_is_taken_away() -> None:
    tokenizer = Tokenizer.from_gguf(sentencepiece())
    ids = tokenizer.encode("a<s>a", bos=False)
    assert tokenizer.decode(ids, special=True) == "a<s> a"
    assert tokenizer.decode([1, *ids], special=True) == "<s> a<s> a"
    assert tokenizer.decode([1, *ids]) == "a a"


def test_begin_and_end_tokens() -> None:
    tokenizer = Tokenizer.from_gguf(sentencepiece(add_eos_token=True))
    assert tokenizer.encode("a", eos=True) == [1, *tokenizer.encode("a", bos=False), 2]
    assert tokenizer.encode("a") == [1, *tokenizer.encode("a", bos=False)]  # a prompt is to be continued
    assert tokenizer.encode("a</s>", eos=True).count(2) == 1
    assert tokenizer.encode("<s>a").count(1) == 1  # one that a chat template wrote is not doubled
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert tokenizer.decode([1, 2]) == ""
    assert tokenizer.decode([1, 2], special=True) == "<s></s>"
    assert Tokenizer.from_gguf(byte_level()).encode("a", bos=True)[0] == 64
    assert Tokenizer.from_gguf(byte_level()).bos_token == ""


def test_byte_fallback() -> None:
    tokenizer = Tokenizer.from_gguf(sentencepiece())
    ids = tokenizer.encode("é", bos=False)
    assert [tokenizer.token_bytes(i) for i in ids] == [b" ", b"\xc3", b"\xa9"]
    without = sentencepiece(tokens=["<unk>", "<s>", "</s>", "a", "▁"], token_type=None, scores=[0.0] * 5)
    assert Tokenizer.from_gguf(without).encode("aé", bos=False) == [4, 3, 0, 0]


def test_byte_level_text() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level())
    assert pieces(tokenizer, "abc ab é") == ["abc", " ab", " ", "é"]
    assert tokenizer.token_bytes(tokenizer.encode("é")[0]) == b"\xc3\xa9"
    assert tokenizer.pieces(tokenizer.encode("🙂")) == ["\ufffd"] * 4


@pytest.mark.parametrize("make", [sentencepiece, byte_level])
def test_streams_never_split_a_character(make: Any) -> None:
    tokenizer = Tokenizer.from_gguf(make())
    text = "aé🙂 漢字 bc\n👩‍👩‍👧"
    stream = tokenizer.stream(after=())
    parts = [stream.push(i) for i in tokenizer.encode(text)]
    assert "".join(parts) + stream.flush() == text
    assert not any("\ufffd" in part for part in parts)
    cut = tokenizer.stream()
    for i in tokenizer.encode("🙂", bos=False)[:-1]:
        assert "\ufffd" not in cut.push(i)
    assert cut.flush() == "\ufffd"


def test_streams_continue_the_prompt() -> None:
    tokenizer = Tokenizer.from_gguf(sentencepiece())
    word, inside, opening = tokenizer.encode("a", bos=False)[0], [5], [1]
    assert tokenizer.stream().push(word) == " a"
    assert tokenizer.stream(after=inside).push(word) == " a"
    assert tokenizer.stream(after=opening).push(word) == "a"
    assert tokenizer.stream().push(10**9) == tokenizer.stream().push(-1) == tokenizer.stream().push(2) == ""


def test_text_that_utf8_cannot_hold() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level())
    assert tokenizer.decode(tokenizer.encode("a\ud83d\ude42\udc00b")) == "a🙂\ufffdb"


def test_fill_in_the_middle_and_ends() -> None:
    names = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|eot_id|>", "</s>", "[EOT"]
    tokenizer = Tokenizer.from_gguf(
        byte_level(tokens=[*ALPHABET.values(), *names], token_type=[NORMAL] * 263, merges=[])
    )
    assert tokenizer.fim == (256, 257, 258)
    assert tokenizer.eos_ids == {259, 260}  # </s> is ordinary text here
    assert tokenizer.decode([260]) == ""
    by_key = byte_level(fim_pre_token_id=3, suffix_token_id=4, fim_mid_token_id=5, eot_token_id=9)
    assert Tokenizer.from_gguf(by_key).fim == (3, 4, 5)
    assert 9 in Tokenizer.from_gguf(by_key).eos_ids
    assert Tokenizer.from_gguf(byte_level()).fim is None


def test_fill_in_the_middle_behind_tokens_without_text() -> None:
    markers = ["<one>", "<two>", "<three>"]
    tokens = [*ALPHABET.values(), "", "", "", "", *markers]
    ids = {f"fim_{key}_token_id": 260 + i for i, key in enumerate(("pre", "suf", "mid"))}
    tokenizer = Tokenizer.from_gguf(byte_level(tokens=tokens, token_type=None, merges=[], **ids))
    assert tokenizer.fim == (260, 261, 262)


def test_missing_pretokenizer() -> None:
    bitnet = byte_level(pre=None, tokens=[*ALPHABET.values(), "<|begin_of_text|>"], token_type=None, merges=[])
    assert pieces(Tokenizer.from_gguf(bitnet), "12 3") == ["1", "2", " ", "3"]
    assert Tokenizer.from_gguf(byte_level(pre=None)).encode("ab")


def test_override_of_the_pretokenizer() -> None:
    with pytest.raises(LoadError, match=r"'my-pre' is not known; .*--pre NAME .*pre=NAME"):
        Tokenizer.from_gguf(byte_level(pre="my-pre"))
    assert Tokenizer.from_gguf(byte_level(pre="my-pre"), pre="qwen2").encode("ab")
    with pytest.raises(LoadError, match="such as llama-bpe"):
        Tokenizer.from_gguf(byte_level(), pre="lama-bpe")
    with pytest.raises(UsageError, match="leave out --pre"):
        Tokenizer.from_gguf(sentencepiece(), pre="qwen2")


def test_control_tokens_of_phi_3_swallow_the_spaces_behind_them() -> None:
    """No key of a GGUF file says so; llama.cpp knows the model by its name, too."""
    metadata = sentencepiece()
    phi = Tokenizer.from_gguf(metadata | {"general.name": "Phi 3 mini: Phi-3"})
    assert phi.encode("</s>  a", bos=False) == phi.encode("</s>a", bos=False)
    assert phi.encode("<s>  a", bos=False) != phi.encode("<s>a", bos=False)
    own = metadata | {"ternrun.tokenizer.lstrip": [2], "ternrun.tokenizer.rstrip": [1]}
    assert Tokenizer.from_gguf(own).encode("<s> a  </s>", bos=False) == phi.encode("<s>a</s>", bos=False)


FAULTS: list[tuple[dict[str, Any], str]] = [
    (byte_level(model="bert"), "'bert' is not supported"),
    (byte_level(model=7), "'7' is not supported"),
    (byte_level(model=None), "holds no tokenizer"),
    (byte_level(tokens=None), "tokens is missing"),
    (byte_level(tokens=[]), "the vocabulary is empty"),
    (byte_level(tokens=["", ""], token_type=None), "the vocabulary is empty"),
    (byte_level(tokens=[1, 2]), "tokens must be a list of strings"),
    (byte_level(tokens="abc"), "tokens must be a list of strings"),
    (byte_level(merges=None), "merges is missing"),
    (byte_level(merges=np.arange(3)), "merges must be a list of strings"),
    (byte_level(token_type=[1]), "token_type must hold 263 numbers"),
    (byte_level(token_type=["x"] * 263), "token_type must hold 263 numbers"),
    (byte_level(token_type=[77] * 263), "has type 77"),
    (byte_level(eos_token_id="x"), "eos_token_id is x"),
    (byte_level(add_bos_token="yes"), "add_bos_token must be true or false"),
    (byte_level(bos_token_id=np.array([1, 2], np.uint32)), "bos_token_id is [1 2]; it must be"),
    (byte_level(fim_pre_token_id=["a"]), "fim_pre_token_id is ['a']; it must be"),
    (byte_level(pre=3), "pre must be a name"),
    (byte_level(pre=np.array([1, 2])), "pre must be a name"),
    (byte_level(model=np.array([1, 2])), "tokenizer model '[1 2]' is not supported"),
    (sentencepiece(scores=[0.0]), "scores must hold"),
    (sentencepiece(scores=[float("nan")] * 269), "not finite"),
    (sentencepiece(scores=np.zeros((269, 1))), "scores must hold"),
    (sentencepiece(tokens=["<unk>", "<s>", "<0x-1>"], token_type=[2, 3, 6], scores=[0.0] * 3), "not '<0x-1>'"),
    (sentencepiece(tokens=["<unk>", "<s>", "<0x1g>"], token_type=[2, 3, 6], scores=[0.0] * 3), "not '<0x1g>'"),
]


@pytest.mark.parametrize(("metadata", "message"), FAULTS, ids=[m for _, m in FAULTS])
def test_damaged_vocabularies_are_refused(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadError, match=re.escape(message)):
        Tokenizer.from_gguf(metadata)


def test_ids_that_no_token_has_are_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = Tokenizer.from_gguf(byte_level(bos_token_id=263, eos_token_id=-5))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (None, None)
    assert "bos_token_id is 263 and is ignored: there are 263 tokens" in caplog.text
    assert "eos_token_id is -5" in caplog.text
    assert Tokenizer.from_gguf(sentencepiece(bos_token_id=10**6)).bos_id == 1  # the default of this vocabulary's kind


def test_text_becomes_the_first_of_equal_tokens_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    tokens = [*ALPHABET.values(), "ab", "<x>", "ab", "<x>"]
    types = [NORMAL] * 257 + [CONTROL, NORMAL, CONTROL]
    tokenizer = Tokenizer.from_gguf(byte_level(tokens=tokens, merges=["a b"], token_type=types))
    assert tokenizer.encode("ab<x>") == [256, 257]
    assert tokenizer.decode([258]) == "ab"
    assert (
        caplog.text.count("2 tokens repeat the text of another; text becomes the first of them ('ab', now token 256)")
        == 1
    )


def test_absent_ids_are_no_fault() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level(bos_token_id=2**32 - 1, eos_token_id=-1))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (None, None)


def test_merges_that_lead_nowhere_are_ignored() -> None:
    odd = ["a b", "a", "", "  ", "x y", "ab nope", "Ġ a", "a b"]
    tokenizer = Tokenizer.from_gguf(byte_level(merges=odd))
    assert pieces(tokenizer, "ab xy a") == ["ab", " ", "x", "y", " ", "a"]


def test_ids_outside_the_vocabulary() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level())
    for ids in ([263], [-1], [1, 2**40]):
        with pytest.raises(UsageError, match="outside the vocabulary of 263"):
            tokenizer.decode(ids)
        with pytest.raises(UsageError, match="outside the vocabulary"):
            tokenizer.pieces(ids)


def test_long_words_take_no_quadratic_time() -> None:
    tokenizer = Tokenizer.from_gguf(open_gguf(smollm2()).metadata)
    text = "ACGTTGCA" * 10_000
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_only_words_of_few_tokens_are_kept() -> None:
    """They come from strangers, and stay until there are 65,536."""
    encode = MergeEncoder({}, lambda a, b: None, str.split, str, lambda word: False, lambda character: [ord(character)])
    text = "ab " + "c" * 17 + " " + "d" * 65
    assert encode(text) == encode(text) == [*b"ab", *b"c" * 17, *b"d" * 65]
    assert set(encode.cache) == {"ab"}


def test_threads_share_a_tokenizer() -> None:
    tokenizer = Tokenizer.from_gguf(open_gguf(smollm2()).metadata)
    text = texts()["unicode"]
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(tokenizer.encode(text))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(ids == found[0] for ids in found)
