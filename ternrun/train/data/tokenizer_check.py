"""What a tokenizer must be like to train with: a GGUF file can say all that it does, and it has tokens for the text.

A file says vocabulary, merges and the name of a way to split text. Whatever else a tokenizer did in training, no reader
of the exported model would do, and prompts would become other tokens than the model learned.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Tokenizer

from ternrun.errors import LoadError, UsageError
from ternrun.loader.tokenizers.token_bytes import ALPHABET

_WORDS = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
_NAMES = {"gpt-2": [_WORDS], "starcoder": [_DIGITS, _WORDS]}  # GGUF's of the ways to split text
_OFF = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")


def splitting(state: Mapping[str, Any]) -> str | None:
    """GGUF's name of how a tokenizer (as its JSON says it) splits text, or None where it has none."""
    stated = state["pre_tokenizer"] or {}
    parts = [{k: v for k, v in part.items() if k != "trim_offsets"} for part in stated.get("pretokenizers", [stated])]
    return next((name for name, wanted in _NAMES.items() if parts == wanted), None)


def check_sayable(tokenizer: Tokenizer, name: str) -> None:
    """Raises LoadError where a GGUF file cannot say what this tokenizer does; `name` is its file's."""
    state = json.loads(tokenizer.to_str())
    model, added = state["model"], state["added_tokens"]
    faults = {
        f"its model is {model['type']}, not BPE": model["type"] != "BPE",
        "it changes text before it is split (normalizer)": state["normalizer"] is not None,
        "it splits text as neither GPT-2 nor StarCoder does (pre_tokenizer)": splitting(state) is None,
        "it does not write bytes (decoder)": (state["decoder"] or {}).get("type") != "ByteLevel",
        "its added tokens are not all special, or take white space with them": not all(
            token["special"] and not (token["lstrip"] or token["rstrip"] or token["single_word"]) for token in added
        ),
        "its ids leave gaps": None in map(tokenizer.id_to_token, range(tokenizer.get_vocab_size())),
    } | {f"it has {key}": bool(model.get(key)) for key in _OFF}
    if fault := next((fault for fault, found in faults.items() if found), None):
        raise LoadError(f"{name} cannot be carried by a GGUF file: {fault}; `ternrun train tokenizer` makes one")


def check_covers(tokenizer: Tokenizer, texts: Iterable[str]) -> None:
    """Raises UsageError for the first character that the vocabulary has no token for: it would be lost silently."""
    known = bytes(byte for byte, symbol in ALPHABET.items() if tokenizer.token_to_id(symbol) is not None)
    if len(known) == len(ALPHABET):
        return
    for text in texts:
        if text.encode().translate(None, known):
            lost = next(character for character in text if character.encode().translate(None, known))
            raise UsageError(f"the tokenizer has no token for {lost!r}, which the text has; learn one from this text")
