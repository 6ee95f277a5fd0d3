"""Byte-level tokenizers to train with, made and kept by the `tokenizers` library, and carried inside the GGUF.

Three kinds: `bpe` trained on the corpus (digits one by one; a line end and the indentation after it make one token),
`gpt2` imported from its vocabulary, and `char` (one token per character seen) for comparisons.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from ternrun.errors import LoadError, UsageError
from ternrun.loader.gguf.file import open_gguf
from ternrun.loader.tokenizers.token_bytes import CONTROL, NORMAL, USER_DEFINED
from ternrun.loader.tokenizers.vocabulary import read_vocabulary
from ternrun.train.data.tokenizer_check import check_sayable, splitting

END = "<|endoftext|>"
FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


def _byte_level() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def train_bpe(texts: Iterable[str], size: int) -> Tokenizer:
    """Byte-level BPE of `size` tokens (special ones included) learned from `texts`. Raises UsageError."""
    if not 300 <= size <= 2**20:
        raise UsageError(f"a vocabulary has 300 to {2**20} tokens, not {size}")
    tokenizer = _fresh(models.BPE(), "starcoder")
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END, *FIM],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def char_level(texts: Iterable[str]) -> Tokenizer:
    """One token per byte that occurs (so per character of ASCII text), in order, and the end token last."""
    seen: set[str] = set()
    splitter = _byte_level()
    for text in texts:
        seen.update(symbol for word, _ in splitter.pre_tokenize_str("".join(sorted(set(text)))) for symbol in word)
    if not seen:
        raise UsageError("the corpus is empty: there is no character to make a vocabulary from")
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(seen))}
    tokenizer = _fresh(models.BPE(vocabulary, []), "gpt-2")
    tokenizer.add_special_tokens([END])
    return tokenizer


def gpt2(vocab: Path, merges: Path) -> Tokenizer:
    """GPT-2's tokenizer from its two files. Raises LoadError."""
    try:
        model = models.BPE.from_file(str(vocab), str(merges))
    except Exception as error:
        raise LoadError(f"{vocab} and {merges} are not GPT-2's vocabulary: {error}") from None
    tokenizer = _fresh(model, "gpt-2")
    tokenizer.add_special_tokens([END])
    return tokenizer


def load(path: Path) -> Tokenizer:
    """A tokenizer like those that the functions above make, as `Tokenizer.save` wrote it or a GGUF file carries it.

    Raises LoadError, also where a GGUF file could not say what it does.
    """
    tokenizer = _carried(path) if path.suffix == ".gguf" else _saved(path)
    if tokenizer.token_to_id(END) is None:
        raise LoadError(f"{path} has no {END} token, which separates documents")
    check_sayable(tokenizer, str(path))
    return tokenizer


def _saved(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise LoadError(f"{path} is not a tokenizer file: {error}") from None
    tokenizer.no_truncation()  # of documents
    tokenizer.no_padding()
    return tokenizer


def _carried(path: Path) -> Tokenizer:
    metadata = open_gguf(path).metadata
    vocabulary, pre = read_vocabulary(metadata), metadata.get("tokenizer.ggml.pre")
    if vocabulary.model != "gpt2" or pre not in ("starcoder", "gpt-2") or vocabulary.of_type(USER_DEFINED):
        raise LoadError(f"{path} carries a tokenizer that training does not know ({vocabulary.model}, {pre})")
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in vocabulary.merges)]
    tokenizer = _fresh(models.BPE(vocabulary.ids, merges), pre)
    tokenizer.add_special_tokens([vocabulary.tokens[i] for i in vocabulary.of_type(CONTROL)])
    return tokenizer


def sample(texts: Iterable[str], limit: int) -> Iterator[str]:
    """Texts up to `limit` characters in all: learning merges needs no more."""
    for text in texts:
        if limit <= 0:
            return
        limit -= len(text)
        yield text


def beginning(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that puts the end token before a prompt: in training every text but the first follows another's end."""
    made: Tokenizer = Tokenizer.from_str(tokenizer.to_str())
    made.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return made


def gguf_metadata(tokenizer: Tokenizer) -> dict[str, Any]:
    """The `tokenizer.ggml.*` keys of a tokenizer made here."""
    state = json.loads(tokenizer.to_str())
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    special = {token["content"] for token in state["added_tokens"]}
    merges = [m if isinstance(m, str) else " ".join(m) for m in state["model"]["merges"]]
    end = tokenizer.token_to_id(END)
    keys = {
        "model": "gpt2",
        "pre": splitting(state),
        "tokens": tokens,
        "token_type": [CONTROL if token in special else NORMAL for token in tokens],
        "merges": merges,
        "bos_token_id": end,
        "eos_token_id": end,
        "add_bos_token": tokenizer.encode("").ids == [end],
    }
    if tokenizer.token_to_id(FIM[0]) is not None:
        names = ("fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id")
        keys |= {name: tokenizer.token_to_id(token) for name, token in zip(names, FIM, strict=True)}
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def fim_ids(tokenizer: Tokenizer) -> tuple[int, int, int, int] | None:
    """Ids of the prefix, suffix, middle and end tokens, or None where the tokenizer lacks one."""
    prefix, suffix, middle, end = (tokenizer.token_to_id(token) for token in (*FIM, END))
    return None if prefix is None or suffix is None or middle is None or end is None else (prefix, suffix, middle, end)


def line_ends(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Ids of the tokens that begin with a line end, sorted."""
    newline = _byte_level().pre_tokenize_str("\n")[0][0]
    return np.array(sorted(i for token, i in tokenizer.get_vocab().items() if token.startswith(newline)), np.int64)


def _fresh(model: Any, pre: str) -> Tokenizer:
    tokenizer = Tokenizer(model)
    split = [_byte_level()] if pre == "gpt-2" else [pre_tokenizers.Digits(individual_digits=True), _byte_level()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
