"""Byte-level tokenizer.json files without special wishes (llama-3, qwen, falcon ...), encoded by our own merging.

The tokenizers package takes a second to index such a vocabulary. Here it only cuts text into words, as the file says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ternrun.loader.tokenizers.bpe import MergeEncoder, by_merges

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

_WISHES = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
_TOKEN_WISHES = ("lstrip", "rstrip", "single_word")


def is_plain(description: Mapping[str, Any]) -> bool:
    """Whether merging alone gives what the package would give; its own data must be sound for that."""
    model, added, words = (description.get(k) for k in ("model", "added_tokens", "pre_tokenizer"))
    wishes = (*_TOKEN_WISHES, "normalized") if description.get("normalizer") else _TOKEN_WISHES
    if not isinstance(model, dict) or not isinstance(added, list) or not isinstance(words, dict):
        return False
    vocab, merges = model.get("vocab"), model.get("merges")
    return (
        model.get("type") == "BPE"
        and not any(model.get(wish) for wish in _WISHES)
        and isinstance(vocab, dict)
        and all(type(i) is int and i >= 0 for i in vocab.values())
        and isinstance(merges, list)
        and all(_is_pair(m) for m in merges)
        and all(_is_token(t) and not any(t.get(wish) for wish in wishes) for t in added)
        and "ByteLevel" in str(words)
        and "'add_prefix_space': True" not in str(words)
    )


def without_model(description: Mapping[str, Any]) -> dict[str, Any]:
    """The same steps around an empty vocabulary."""
    return {**description, "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}


def plain_vocabulary(description: Mapping[str, Any]) -> tuple[dict[str, int], dict[int, bool]]:
    """Ids by text, and of each added token whether it is a control token."""
    added = description["added_tokens"]
    ids = description["model"]["vocab"] | {t["content"]: t["id"] for t in added}
    return ids, {t["id"]: bool(t.get("special")) for t in added}


def plain_encoder(description: Mapping[str, Any], library: Library) -> MergeEncoder:
    """Encoder of text without special tokens; `library` has the file's normalizer and pre-tokenizer."""
    model = description["model"]
    added = {t["content"] for t in description["added_tokens"]}
    ids = {text: i for text, i in model["vocab"].items() if text not in added}
    whole = model.get("ignore_merges") is True
    split = library.pre_tokenizer.pre_tokenize_str
    normalize = library.normalizer.normalize_str if library.normalizer else str
    merges = (m if isinstance(m, str) else " ".join(m) for m in model["merges"])
    return MergeEncoder(
        ids,
        by_merges(merges, ids, at_need=whole),
        cut=lambda text: [word for word, _ in split(normalize(text))],
        spell=str,
        whole=lambda _: whole,
        spare=lambda _: [],
    )


def _is_pair(merge: Any) -> bool:
    if isinstance(merge, str):
        return True
    return isinstance(merge, list) and len(merge) == 2 and isinstance(merge[0], str) and isinstance(merge[1], str)


def _is_token(token: Any) -> bool:
    return (
        isinstance(token, dict)
        and isinstance(token.get("content"), str)
        and type(token.get("id")) is int
        and token["id"] >= 0
    )
