"""Build a tokenizer from a GGUF file's metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ternrun.errors import LoadError, UsageError
from ternrun.loader.tokenizers import carried
from ternrun.loader.tokenizers.bpe import byte_level, sentencepiece
from ternrun.loader.tokenizers.pretokenizers import RAW, PreTokenizer, pretokenizer
from ternrun.loader.tokenizers.special_tokens import around_special
from ternrun.loader.tokenizers.token_bytes import CONTROL, UNKNOWN, USER_DEFINED, token_bytes
from ternrun.loader.tokenizers.unigram import unigram
from ternrun.loader.tokenizers.vocabulary import Vocabulary, flag, read_vocabulary


def build(metadata: Mapping[str, Any], pre: str | None) -> dict[str, Any]:
    """Return the fields of a `Tokenizer`."""
    stated = [
        v if isinstance(v, str) else "" for v in map(metadata.get, ("tokenizer.ggml.model", "tokenizer.ggml.pre"))
    ]
    if stated[0] == "gpt2" and (pre or stated[1]) in RAW:
        metadata, pre = {**metadata, "tokenizer.ggml.model": "gemma4"}, None
    vocabulary = read_vocabulary(metadata)
    model = vocabulary.model
    if pre is not None and model != "gpt2":
        raise UsageError(f"a tokenizer of model {model!r} uses no pre-tokenizer; leave out --pre (in Python: pre=)")
    words = pretokenizer_of(metadata, vocabulary, pre) if model == "gpt2" else None
    add_bos = flag(metadata, "add_bos_token", words.add_bos if words else model != "t5") or model == "gemma4"
    described = carried.unpack(metadata, vocabulary.tokens) if pre is None else None
    return {
        "bos_id": vocabulary.bos,
        "eos_id": vocabulary.eos,
        "eos_ids": carried.ends(metadata, vocabulary.ends, len(vocabulary.tokens)),
        "add_bos": add_bos,
        "add_eos": flag(metadata, "add_eos_token", model == "t5"),
        # as llama.cpp, unless the file says otherwise: templates in GGUF files leave the begin token to the tokenizer
        "chat_bos": add_bos and metadata.get(carried.CHAT_BOS) is not False,
    } | (_by_keys(metadata, vocabulary, words) if described is None else _described(described))


def _described(description: Mapping[str, Any]) -> dict[str, Any]:
    from ternrun.loader.tokenizers.from_hf import build_described  # few files need it

    return build_described(description, f"metadata key {carried.DESCRIPTION}")[0]


def _by_keys(metadata: Mapping[str, Any], vocabulary: Vocabulary, words: PreTokenizer | None) -> dict[str, Any]:
    """The fields that GGUF's own keys decide."""
    model = vocabulary.model
    prefix = model in ("llama", "t5") and flag(metadata, "add_space_prefix", model == "llama")
    hidden = frozenset(vocabulary.of_type(CONTROL, UNKNOWN))
    special = hidden.union(vocabulary.of_type(USER_DEFINED))
    encode: Callable[[str], list[int]]
    if words is not None:
        encode = byte_level(vocabulary, words)
    elif model == "t5":
        encode = unigram(vocabulary, metadata)
    else:
        encode = sentencepiece(vocabulary)
    return {
        "vocab_size": len(vocabulary.tokens),
        "fim": vocabulary.fim,
        "files": vocabulary.files,
        "space_prefix": prefix,
        "special_ids": special,
        "hidden_ids": hidden,
        "encode_text": around_special(
            vocabulary.tokens, special, hidden, encode, " " if prefix and model == "llama" else ""
        ),
        "bytes_of": token_bytes(vocabulary.tokens, vocabulary.types, byte_level=model == "gpt2"),
    }


def pretokenizer_of(metadata: Mapping[str, Any], vocabulary: Vocabulary, override: str | None) -> PreTokenizer:
    """The way a byte-level vocabulary wants its words cut. Raises LoadError for a name that is not known."""
    name = override or metadata.get("tokenizer.ggml.pre")
    if name is not None and not isinstance(name, str):
        raise LoadError(f"metadata key tokenizer.ggml.pre must be a name, not {name!r:.40}")
    if not name:  # Microsoft's BitNet files name none and hold llama-3's vocabulary
        name = "llama-bpe" if "<|begin_of_text|>" in vocabulary.ids else "default"
    return pretokenizer(name)
