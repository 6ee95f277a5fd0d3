"""A tokenizer that GGUF's own keys cannot say, in keys of ternrun's: the contents of a tokenizer.json beside them.

    ternrun.tokenizer.json            tokenizer.json without what tokenizer.ggml.tokens and .merges hold
    ternrun.tokenizer.add_bos_to_chat bool, where it differs from tokenizer.ggml.add_bos_token
    ternrun.tokenizer.end_token_ids   every token that ends generation, where the usual keys name others
    ternrun.tokenizer.prefix_once     bool: a space is put before the first text alone, not behind special tokens, too
    ternrun.tokenizer.sentencepiece   bool: a `llama` vocabulary with a normalizer, whose unknown characters become one
    ternrun.tokenizer.lstrip, .rstrip ids of special tokens that swallow the spaces before them, or behind them

Other programs ignore these keys and use tokenizer.ggml.*, which hold the nearest that GGUF can say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.loader.tokenizers.added_tokens import content_of, without_last
from ternrun.loader.tokenizers.token_bytes import UNUSED

PREFIX = "ternrun.tokenizer."
DESCRIPTION, CHAT_BOS, ENDS, PREFIX_ONCE, SENTENCEPIECE, LSTRIP, RSTRIP = (
    PREFIX + name
    for name in ("json", "add_bos_to_chat", "end_token_ids", "prefix_once", "sentencepiece", "lstrip", "rstrip")
)


def pack(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that hold `description`, the contents of a tokenizer.json, beside the tokens of the file."""
    model = dict(description["model"])
    keys = dict[str, Any]()
    if isinstance(model["vocab"], dict):  # a unigram model's list has scores that float32 would round
        model["vocab"] = {}
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges", ())]
    if merges and not any(" " in part for merge in merges for part in merge):
        keys["tokenizer.ggml.merges"] = [" ".join(merge) for merge in merges]
        model["merges"] = []
    written = {**description, "model": model, "truncation": None, "padding": None}
    return keys | {DESCRIPTION: json.dumps(written, ensure_ascii=False, separators=(",", ":"))}


def unpack(metadata: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, Any] | None:
    """Return the contents of the tokenizer.json that a file carries; None where it carries none. Raises LoadError."""
    text = metadata.get(DESCRIPTION)
    if text is None:
        return None
    try:
        description = json.loads(text)
        model = description["model"]
        empty = (model["vocab"], model.get("merges")) if isinstance(model["vocab"], dict) else (None, None)
    except (TypeError, ValueError, KeyError, RecursionError) as e:
        raise LoadError(f"metadata key {DESCRIPTION} does not hold a tokenizer.json: {str(e)[:80]}") from e
    if empty[0] == {}:
        types = np.asarray(metadata.get("tokenizer.ggml.token_type", np.zeros(len(tokens))))
        if types.shape != (len(tokens),):
            raise LoadError(f"metadata key tokenizer.ggml.token_type must hold {len(tokens)} numbers")
        vocab = {token: i for i, token in enumerate(tokens) if types[i] != UNUSED}
        listed = description.get("added_tokens")
        added = {text for token in (listed if isinstance(listed, list) else ()) if (text := content_of(token))}
        model["vocab"] = without_last(vocab, added)
    if empty[1] == []:
        model["merges"] = list(metadata.get("tokenizer.ggml.merges", ()))
    return dict(description)


def ends(metadata: Mapping[str, Any], usual: frozenset[int], count: int) -> frozenset[int]:
    """Return the tokens that end generation: those of the file's key where it has one, else `usual`."""
    return usual if metadata.get(ENDS) is None else _ids(metadata, ENDS, count)


def strips(metadata: Mapping[str, Any], count: int) -> dict[int, tuple[bool, bool]]:
    """Return whether special tokens swallow the spaces before them and behind them, for those that do."""
    before, behind = (_ids(metadata, key, count) for key in (LSTRIP, RSTRIP))
    return {i: (i in before, i in behind) for i in before | behind}


def _ids(metadata: Mapping[str, Any], key: str, count: int) -> frozenset[int]:
    ids = np.asarray(metadata.get(key, ()))
    if ids.size and (ids.ndim != 1 or ids.dtype.kind not in "iu" or not 0 <= ids.min() <= ids.max() < count):
        raise LoadError(f"metadata key {key} must list ids of the {count} tokens")
    return frozenset(ids.tolist())
