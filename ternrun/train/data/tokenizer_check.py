"""Checks of a tokenizer before training: GGUF can represent it, and it has a token for every character.

A GGUF file stores the vocabulary, the merges and the name of a pre-tokenizer. Readers of an exported model do
nothing else, so other processing in training would give prompts other tokens than the model learned.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Tokenizer

from ternrun.errors import LoadError, UsageError
from ternrun.loader.tokenizers.token_bytes import ALPHABET

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
_PRETOKENIZERS = {"gpt-2": [_BYTE_LEVEL], "starcoder": [_DIGITS, _BYTE_LEVEL]}  # by name in GGUF
_UNSUPPORTED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")


def pretokenizer_name(state: Mapping[str, Any]) -> str | None:
    """GGUF's name for the pre-tokenizer of a tokenizer's JSON, or None if GGUF has none."""
    config = state["pre_tokenizer"] or {}
    parts = [{k: v for k, v in part.items() if k != "trim_offsets"} for part in config.get("pretokenizers", [config])]
    return next((name for name, wanted in _PRETOKENIZERS.items() if parts == wanted), None)


def check_exportable(tokenizer: Tokenizer, name: str) -> None:
    """Raise LoadError if GGUF cannot represent this tokenizer; `name` is the file in the message."""
    state = json.loads(tokenizer.to_str())
    model, added = state["model"], state["added_tokens"]
    faults = {
        f"its model is {model['type']}, not BPE": model["type"] != "BPE",
        "it has a normalizer": state["normalizer"] is not None,
        "its pre_tokenizer is neither GPT-2's nor StarCoder's": pretokenizer_name(state) is None,
        "its decoder is not ByteLevel": (state["decoder"] or {}).get("type") != "ByteLevel",
        "its added tokens are not all special, or strip white space": not all(
            token["special"] and not (token["lstrip"] or token["rstrip"] or token["single_word"]) for token in added
        ),
        "its ids have gaps": None in map(tokenizer.id_to_token, range(tokenizer.get_vocab_size())),
    } | {f"it has {key}": bool(model.get(key)) for key in _UNSUPPORTED}
    if fault := next((fault for fault, found in faults.items() if found), None):
        raise LoadError(
            f"{name} cannot be stored in a GGUF file: {fault}; `ternrun train tokenizer` makes one that can"
        )


def check_coverage(tokenizer: Tokenizer, texts: Iterable[str]) -> None:
    """Raise UsageError for the first character without a token in the vocabulary; tokenizing would drop it silently."""
    known = bytes(byte for byte, symbol in ALPHABET.items() if tokenizer.token_to_id(symbol) is not None)
    if len(known) == len(ALPHABET):
        return
    for text in texts:
        if text.encode().translate(None, known):
            lost = next(character for character in text if character.encode().translate(None, known))
            raise UsageError(f"the tokenizer has no token for {lost!r}, which is in the text; train one on this text")
