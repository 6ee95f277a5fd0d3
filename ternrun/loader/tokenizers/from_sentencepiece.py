"""A SentencePiece model and the files beside it as GGUF's keys, with ternrun's own for what these cannot state."""

from __future__ import annotations

from typing import Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.loader.tokenizers import carried
from ternrun.loader.tokenizers.hf_files import TokenizerFiles
from ternrun.loader.tokenizers.sentencepiece_model import SentencePieceModel
from ternrun.loader.tokenizers.token_bytes import CONTROL, UNUSED, USER_DEFINED

_NONE = 2**32 - 1  # how GGUF files state that there is no such token


def sentencepiece_metadata(
    files: TokenizerFiles, pieces: SentencePieceModel, size: int | None = None
) -> dict[str, Any]:
    """Return `tokenizer.ggml.*` and `ternrun.tokenizer.*` keys of `size` tokens, by default as many as there are.

    Text is cut as the sentencepiece package cuts it. Raises LoadError for a model whose rules no key can state.
    """
    if pieces.merge_spaces and not pieces.prefix:
        raise LoadError(f"{files.path} drops spaces and puts none before the text, which is not supported")
    tokens, types, scores = list(pieces.tokens), list(pieces.types), list(pieces.scores)
    added = files.description["added_tokens"]
    count = max([len(tokens), size or 0, *(token["id"] + 1 for token in added)])
    if size is not None and count > size:
        raise LoadError(f"{files.path} has {count} tokens, the embedding only {size} rows")
    tokens += [f"[PAD{i}]" for i in range(len(tokens), count)]
    types += [UNUSED] * (count - len(types))
    scores += [0.0] * (count - len(scores))
    for token in added:
        known = token["id"] < len(pieces.types) and token["id"] == pieces.unknown
        tokens[token["id"]] = token["content"]
        if not known:
            types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    keys: dict[str, Any] = {"model": "llama" if pieces.kind == "bpe" else "t5"}
    keys |= {"tokens": tokens, "token_type": types, "scores": scores}
    bos, eos, ends = files.ends({token: i for i, token in enumerate(tokens)})
    keys |= _frame(files, pieces, bos, eos)
    keys |= {"add_space_prefix": pieces.prefix, "remove_extra_whitespaces": pieces.merge_spaces}
    if pieces.charsmap:
        keys["precompiled_charsmap"] = np.frombuffer(pieces.charsmap, np.uint8)
    own: dict[str, Any] = {carried.SENTENCEPIECE: True, carried.CHAT_BOS: False, carried.ENDS: sorted(ends)}
    own |= {carried.PREFIX_ONCE: True} if pieces.prefix and not _legacy(files.config) else {}
    for key, flag in ((carried.LSTRIP, "lstrip"), (carried.RSTRIP, "rstrip")):
        stripping = [token["id"] for token in added if token[flag]]
        own |= {key: stripping} if stripping else {}
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()} | own


def _frame(files: TokenizerFiles, pieces: SentencePieceModel, bos: int | None, eos: int | None) -> dict[str, Any]:
    """Begin and end tokens; where tokenizer_config.json does not say, as llama.cpp and T5's tokenizer add them."""
    by_kind = {"bos": pieces.kind == "bpe", "eos": _class(files.config).startswith("T5")}
    keys: dict[str, Any] = {}
    for which, token in (("bos", bos), ("eos", eos), ("unknown", pieces.unknown)):
        keys[f"{which}_token_id"] = _NONE if token is None else token
        if which in by_kind:
            stated = files.config.get(f"add_{which}_token")
            keys[f"add_{which}_token"] = token is not None and (stated if type(stated) is bool else by_kind[which])
    return keys


def _legacy(config: dict[str, Any]) -> bool:
    """Whether a space is put before the text behind each special token, too (transformers' `legacy`)."""
    stated = config.get("legacy")
    return stated if type(stated) is bool else not _class(config).startswith("Llama")


def _class(config: dict[str, Any]) -> str:
    return str(config.get("tokenizer_class"))
