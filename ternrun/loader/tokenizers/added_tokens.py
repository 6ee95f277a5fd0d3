"""The added tokens of a Hugging Face folder: those of tokenizer.json, and those that only the files beside it state.

The order in which files count is that of transformers 5 (tokenization_utils_base.py): flags of `added_tokens_decoder`
in tokenizer_config.json win; without that table, added_tokens.json and special_tokens_map.json are read.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from ternrun.loader.gguf.strings import MAX_STRINGS

_log = logging.getLogger("ternrun.loader")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("extra_special_tokens", "additional_special_tokens")  # the second is the older name of the first
_DECODER = "added_tokens_decoder"

Table = Mapping[str, Any]


def named_tokens(config: Table, special_map: Table) -> dict[str, Any]:
    """Return the special tokens by role (`bos_token`, ...): a text, or a table with `content` and flags."""
    stated = config if isinstance(config.get(_DECODER), dict) else {**config, **special_map}
    lists = [key for key in _LISTS if stated.get(key)][:1]
    return {key: stated[key] for key in (*_NAMED, *lists) if stated.get(key)}


def content_of(token: Any) -> str | None:
    """Return the text of a token that is given as text or as a table; None for anything else."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) and text else None


def merge_added_tokens(
    description: dict[str, Any], config: Table, special_map: Table, added: Table, rows: int | None
) -> dict[str, Any]:
    """Return `description`, the contents of tokenizer.json, with one complete list of added tokens.

    `config`, `special_map` and `added` are tokenizer_config.json, special_tokens_map.json and added_tokens.json. A
    token that the model's vocabulary has keeps that id; another keeps the id that its file states, or gets the next
    free one where a different token has it. Tokens beyond `rows`, the rows of the embedding, are left out. Every such
    departure logs a warning. A description that the tokenizers package would refuse is returned as it is.
    """
    listed, vocab = description.get("added_tokens") or [], _vocabulary(description)
    if not isinstance(listed, list) or not all(map(_is_token, listed)) or vocab is None:
        return description
    tokens = _Tokens(vocab)
    for token in listed:
        tokens.add(token["content"], token["id"], {flag: bool(token.get(flag)) for flag in _FLAGS})
    for content, stated, flags in _stated(config, special_map, added):
        tokens.add(content, stated, flags, override=True)
    for content, flags in _named(named_tokens(config, special_map)):
        if content not in tokens.found:
            tokens.add(content, None, flags)
    found = tokens.within(rows)
    return (
        description
        if found == listed
        else {**description, "added_tokens": found, "model": _extended(description, found)}
    )


class _Tokens:
    """Added tokens as they are found; `found` maps a token's text to its entry."""

    def __init__(self, vocab: Mapping[str, int]) -> None:
        self._vocab = vocab
        self._taken = set(vocab.values())
        self.found: dict[str, dict[str, Any]] = {}

    def add(self, content: str, stated: int | None, flags: Mapping[str, bool], *, override: bool = False) -> None:
        """Add a token, or give one that is known other flags with `override`."""
        known = self.found.get(content)
        token = known["id"] if known else self._id(content, stated)
        if token is None:
            return
        if stated not in (None, token):
            _log.warning(
                "added token %r has id %d; id %s, which is stated for it, is ignored", content[:40], token, stated
            )
        if known is None or override:
            self.found[content] = {"id": token, "content": content, **flags}
            self._taken.add(token)

    def within(self, rows: int | None) -> list[dict[str, Any]]:
        """The tokens by id, without those that an embedding of `rows` rows has no row for."""
        tokens = sorted(self.found.values(), key=lambda token: token["id"])
        beyond = [token for token in tokens if rows and token["id"] >= rows and token["content"] not in self._vocab]
        if beyond:
            first = f"{beyond[0]['content'][:40]!r} with id {beyond[0]['id']}"
            _log.warning("%d added tokens are left out: the embedding has only %d rows (%s)", len(beyond), rows, first)
        return [token for token in tokens if token not in beyond]

    def _id(self, content: str, stated: int | None) -> int | None:
        if content in self._vocab:
            return self._vocab[content]
        if stated is not None and not 0 <= stated < MAX_STRINGS:
            _log.warning("added token %r is left out: its id %s is out of range", content[:40], str(stated)[:20])
            return None
        return max(self._taken, default=-1) + 1 if stated is None or stated in self._taken else stated


def _stated(config: Table, special_map: Table, added: Table) -> Iterator[tuple[str, int, dict[str, bool]]]:
    decoder = config.get(_DECODER)
    if isinstance(decoder, dict):
        entries = ((_number(key), entry) for key, entry in decoder.items() if isinstance(entry, dict))
        for stated, entry in sorted((e for e in entries if e[0] is not None), key=lambda e: e[0] or 0):
            if (content := content_of(entry)) is not None and stated is not None:
                yield content, stated, _flags(entry, special=entry.get("special") is True)
        return
    special = {content for content, _ in _named(named_tokens(config, special_map))}
    for content, stated in added.items():
        if type(stated) is int and content:
            yield content, stated, _flags({}, special=content in special)


def _named(named: Table) -> Iterator[tuple[str, dict[str, bool]]]:
    for key, value in named.items():
        values = value.values() if isinstance(value, dict) else value
        for token in (values if isinstance(values, Iterable) else ()) if key in _LISTS else (value,):
            if (content := content_of(token)) is not None:
                yield content, _flags(token if isinstance(token, dict) else {}, special=True)


def _flags(entry: Table, *, special: bool) -> dict[str, bool]:
    """Flags with the defaults of the tokenizers package: a special token is not looked for in normalized text."""
    usual = {"normalized": not special, "special": special}
    return {flag: entry[flag] if type(entry.get(flag)) is bool else usual.get(flag, False) for flag in _FLAGS} | {
        "special": special
    }


def _number(key: str) -> int | None:
    return int(key) if key.isdecimal() and len(key) < 20 else None


def _is_token(token: Any) -> bool:
    return (
        isinstance(token, dict) and content_of(token) is not None and type(token.get("id")) is int and token["id"] >= 0
    )


def _vocabulary(description: Table) -> dict[str, int] | None:
    model = description.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list) and all(isinstance(v, list) and v and isinstance(v[0], str) for v in vocab):
        return {piece[0]: i for i, piece in enumerate(vocab)}
    return vocab if isinstance(vocab, dict) and all(type(i) is int and i >= 0 for i in vocab.values()) else None


def _extended(description: Table, tokens: list[dict[str, Any]]) -> dict[str, Any]:
    """The model with those added tokens in its vocabulary to which the package would give other ids."""
    model: dict[str, Any] = description["model"]
    if not isinstance(model["vocab"], dict):
        return model  # a unigram model would take them for pieces of text
    added = {token["content"]: token["id"] for token in tokens}
    return {**model, "vocab": without_last(added | model["vocab"], added)}


def without_last(vocab: Mapping[str, int], added: Container[str]) -> dict[str, int]:
    """Return the vocabulary without the added tokens at its end, which the tokenizers package numbers alike by itself.

    In the vocabulary they could be found as words. One with ids that no token has is returned whole.
    """
    size = len(vocab)
    texts = {i: text for text, i in vocab.items()}
    if len(texts) < size or max(texts, default=-1) + 1 != size:
        return dict(vocab)
    while size and texts[size - 1] in added:
        size -= 1
    return {text: i for text, i in vocab.items() if i < size}
