"""Build a tokenizer from a GGUF file's metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any

from ternrun.errors import LoadError, UsageError
from ternrun.loader.tokenizers import carried
from ternrun.loader.tokenizers.bpe import byte_level, one_unknown, sentencepiece
from ternrun.loader.tokenizers.pretokenizers import RAW, PreTokenizer, pretokenizer
from ternrun.loader.tokenizers.special_tokens import SpecialTokens, around_special
from ternrun.loader.tokenizers.token_bytes import CONTROL, SPACE, UNKNOWN, USER_DEFINED, token_bytes
from ternrun.loader.tokenizers.unigram import normalization, unigram, unigram_pieces
from ternrun.loader.tokenizers.vocabulary import Vocabulary, flag, read_vocabulary

Encode = Callable[[str, bool], list[int]]  # text, whether control tokens spelled out in it count as such


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
    from ternrun.loader.tokenizers.tokenizer_json import build_described  # few files need it

    return build_described(description, f"metadata key {carried.DESCRIPTION}")[0]


def _by_keys(metadata: Mapping[str, Any], vocabulary: Vocabulary, words: PreTokenizer | None) -> dict[str, Any]:
    """The fields that GGUF's own keys decide, and what ternrun's add to them."""
    model = vocabulary.model
    prefix = model in ("llama", "t5") and flag(metadata, "add_space_prefix", model == "llama")
    hidden = frozenset(vocabulary.of_type(CONTROL, UNKNOWN))
    special = hidden.union(vocabulary.of_type(USER_DEFINED))
    return {
        "vocab_size": len(vocabulary.tokens),
        "fim": vocabulary.fim,
        "files": vocabulary.files,
        "space_prefix": prefix,
        "special_ids": special,
        "hidden_ids": hidden,
        "encode_text": _encoder(metadata, vocabulary, words, special, hidden, " " if prefix else ""),
        "bytes_of": token_bytes(vocabulary.tokens, vocabulary.types, byte_level=model == "gpt2"),
    }


def _encoder(
    metadata: Mapping[str, Any], vocabulary: Vocabulary, words: PreTokenizer | None, special: Set[int],
    hidden: Set[int], prefix: str,
) -> Encode:  # fmt: skip
    tokens, strips = vocabulary.tokens, _strips(metadata, vocabulary, special)
    if metadata.get(carried.SENTENCEPIECE) is True and words is None:
        pieces = sentencepiece(vocabulary) if vocabulary.model == "llama" else unigram_pieces(vocabulary)
        encode = whole_text(vocabulary, normalization(metadata), pieces)
        once = metadata.get(carried.PREFIX_ONCE) is True
        return around_special(tokens, hidden, hidden, encode, prefix, prefix_once=once, strips=strips)
    if words is not None:
        return around_special(tokens, special, hidden, byte_level(vocabulary, words), "", strips=strips)
    if vocabulary.model == "t5":
        return around_special(tokens, special, hidden, unigram(vocabulary, metadata), "", strips=strips)
    return around_special(tokens, special, hidden, sentencepiece(vocabulary), prefix, strips=strips)


def whole_text(
    vocabulary: Vocabulary, normalize: Callable[[str], str], encode: Callable[[str], list[int]]
) -> Callable[[str], list[int]]:
    """Return an encoder by SentencePiece's own rules: user-defined pieces are found in the normalized text, whose other
    parts get no space of their own, and a run of unknown characters is one token."""
    defined = SpecialTokens({vocabulary.tokens[i].replace(SPACE, " "): i for i in vocabulary.of_type(USER_DEFINED)})

    def encode_text(text: str) -> list[int]:
        parts = defined.split(normalize(text))
        ids = [i for part in parts for i in ([part] if isinstance(part, int) else encode(part))]
        return one_unknown(ids, vocabulary.unknown)

    return encode_text


def _strips(metadata: Mapping[str, Any], vocabulary: Vocabulary, special: Set[int]) -> dict[int, tuple[bool, bool]]:
    """Whether special tokens swallow spaces; no usual key says so, and llama.cpp knows it of Phi 3 by its name."""
    stated, name = carried.strips(metadata, len(vocabulary.tokens)), metadata.get("general.name")
    if not stated and isinstance(name, str) and ("phi-3" in name.lower() or "phi3" in name.lower()):
        return {i: (False, True) for i in special if vocabulary.tokens[i] not in ("<unk>", "<s>", "<|endoftext|>")}
    return stated


def pretokenizer_of(metadata: Mapping[str, Any], vocabulary: Vocabulary, override: str | None) -> PreTokenizer:
    """The way a byte-level vocabulary wants its words cut. Raises LoadError for a name that is not known."""
    name = override or metadata.get("tokenizer.ggml.pre")
    if name is not None and not isinstance(name, str):
        raise LoadError(f"metadata key tokenizer.ggml.pre must be a name, not {name!r:.40}")
    if not name:  # Microsoft's BitNet files name none and hold llama-3's vocabulary
        name = "llama-bpe" if "<|begin_of_text|>" in vocabulary.ids else "default"
    return pretokenizer(name)
