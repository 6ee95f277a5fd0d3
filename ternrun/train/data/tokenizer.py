"""Byte-level tokenizers for training, stored in the `tokenizers` library's format and inside GGUF files.

Three kinds: `bpe` is trained on the corpus (each digit is separate; a line end and the indentation after it form one
token), `gpt2` is read from GPT-2's vocabulary files, and `char` has one token per byte that occurs.
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
from ternrun.loader.unsupported.explain import explain_errors
from ternrun.train.data.tokenizer_check import check_exportable, pretokenizer_name

END = "<|endoftext|>"
FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


def _byte_level() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def train_bpe(texts: Iterable[str], size: int) -> Tokenizer:
    """Train byte-level BPE with `size` tokens (special ones included) on `texts`. Raises UsageError for a bad size."""
    if not 300 <= size <= 2**20:
        raise UsageError(f"a vocabulary has 300 to {2**20} tokens, not {size}")
    tokenizer = _new_tokenizer(models.BPE(), "starcoder")
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
    """A tokenizer with one token per byte that occurs in `texts`, sorted, and the end token last. Raises UsageError."""
    seen: set[str] = set()
    splitter = _byte_level()
    for text in texts:
        seen.update(symbol for word, _ in splitter.pre_tokenize_str("".join(sorted(set(text)))) for symbol in word)
    if not seen:
        raise UsageError("the corpus is empty: there is no character for a vocabulary")
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(seen))}
    tokenizer = _new_tokenizer(models.BPE(vocabulary, []), "gpt-2")
    tokenizer.add_special_tokens([END])
    return tokenizer


def gpt2(vocab: Path, merges: Path) -> Tokenizer:
    """GPT-2's tokenizer from its files vocab.json and merges.txt. Raises LoadError."""
    try:
        model = models.BPE.from_file(str(vocab), str(merges))
    except Exception as error:
        raise LoadError(f"{vocab} and {merges} are not GPT-2's vocabulary: {error}") from None
    tokenizer = _new_tokenizer(model, "gpt-2")
    tokenizer.add_special_tokens([END])
    return tokenizer


def load(path: Path) -> Tokenizer:
    """Load a tokenizer from a tokenizer.json or GGUF file.

    Raises LoadError if the file is damaged, has no end token, or GGUF cannot represent the tokenizer.
    """
    tokenizer = _from_gguf(path) if path.suffix == ".gguf" else _from_json(path)
    if tokenizer.token_to_id(END) is None:
        raise LoadError(f"{path} has no {END} token to separate documents")
    check_exportable(tokenizer, str(path))
    return tokenizer


def _from_json(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise LoadError(f"{path} is not a tokenizer file: {error}") from None
    tokenizer.no_truncation()  # documents can be long
    tokenizer.no_padding()
    return tokenizer


def _from_gguf(path: Path) -> Tokenizer:
    with explain_errors(path):
        metadata = open_gguf(path).metadata
    vocabulary, pre = read_vocabulary(metadata), metadata.get("tokenizer.ggml.pre")
    if vocabulary.model != "gpt2" or pre not in ("starcoder", "gpt-2") or vocabulary.of_type(USER_DEFINED):
        raise LoadError(f"{path} contains a tokenizer that training does not support ({vocabulary.model}, {pre})")
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in vocabulary.merges)]
    tokenizer = _new_tokenizer(models.BPE(vocabulary.ids, merges), pre)
    tokenizer.add_special_tokens([vocabulary.tokens[i] for i in vocabulary.of_type(CONTROL)])
    return tokenizer


def limit_characters(texts: Iterable[str], limit: int) -> Iterator[str]:
    """The first texts, until they have `limit` characters in total."""
    for text in texts:
        if limit <= 0:
            return
        limit -= len(text)
        yield text


def with_bos(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that puts the end token before a prompt, as in training, where a text follows the end of another one."""
    made: Tokenizer = Tokenizer.from_str(tokenizer.to_str())
    made.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return made


def gguf_metadata(tokenizer: Tokenizer) -> dict[str, Any]:
    """The `tokenizer.ggml.*` metadata of a tokenizer from this module."""
    state = json.loads(tokenizer.to_str())
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    special = {token["content"] for token in state["added_tokens"]}
    merges = [m if isinstance(m, str) else " ".join(m) for m in state["model"]["merges"]]
    end = tokenizer.token_to_id(END)
    keys = {
        "model": "gpt2",
        "pre": pretokenizer_name(state),
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
    """Ids of the prefix, suffix, middle and end tokens, or None if the tokenizer lacks one of them."""
    prefix, suffix, middle, end = (tokenizer.token_to_id(token) for token in (*FIM, END))
    return None if prefix is None or suffix is None or middle is None or end is None else (prefix, suffix, middle, end)


def line_ends(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Ids of the tokens that begin with a line end, sorted."""
    newline = _byte_level().pre_tokenize_str("\n")[0][0]
    return np.array(sorted(i for token, i in tokenizer.get_vocab().items() if token.startswith(newline)), np.int64)


def _new_tokenizer(model: Any, pre: str) -> Tokenizer:
    tokenizer = Tokenizer(model)
    split = [_byte_level()] if pre == "gpt-2" else [pre_tokenizers.Digits(individual_digits=True), _byte_level()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
