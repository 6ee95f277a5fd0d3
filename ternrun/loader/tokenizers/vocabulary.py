"""The vocabulary in a GGUF file's metadata, checked: token texts, types, scores or merges, and which tokens end text.

Rules that no key states (which names end generation, which mark fill-in-the-middle) follow llama.cpp's llama-vocab.cpp,
which every published file is made for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.gguf.strings import MAX_STRINGS, StringArray
from ternrun.loader.tokenizers.token_bytes import BYTE, CONTROL, byte_value

_log = logging.getLogger("ternrun.loader")

# tokenizer.ggml.model -> ids where the file does not say
DEFAULT_IDS: dict[str, dict[str, int]] = {
    "gpt2": {},
    "gemma4": {},
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "t5": {"eos": 1, "unknown": 2},
}


def _names(text: str) -> list[str]:
    return text.split()


END_NAMES = _names(
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> <|eom_id|> <EOT>"
    " _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> <｜end▁of▁sentence｜> [e~["
    " <|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame> <|file_sep|>"
)
_FIM = (  # keys and names of the prefix, suffix and middle tokens
    (
        ("fim_pre", "prefix"),
        _names("<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>"),
    ),
    (
        ("fim_suf", "suffix"),
        _names("<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>"),
    ),
    (
        ("fim_mid", "middle"),
        _names("<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>"),
    ),
)
_FILES = (  # of the tokens before a project's name and before a file's
    (("fim_rep",), _names("<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>")),
    (("fim_sep",), _names("<|file_sep|>")),
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`types` (n,) int8; `scores` (n,) float64, zero where the file has none; `merges`: "left right", best first."""

    model: str
    tokens: list[str]
    ids: dict[str, int]
    types: NDArray[np.int8]
    scores: NDArray[np.float64]
    merges: Sequence[str]
    bos: int | None
    eos: int | None
    unknown: int | None
    ends: frozenset[int]
    fim: tuple[int, int, int] | None  # prefix, suffix, middle
    files: tuple[int | None, int | None]  # before a project's name, before a file's

    def of_type(self, *types: int) -> list[int]:
        """Ids of all tokens of these types."""
        return [int(i) for i in np.flatnonzero(np.isin(self.types, types))]


def read_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """Raises LoadError, which names the key or the token at fault."""
    model = metadata.get("tokenizer.ggml.model")
    if model is None or (isinstance(model, str) and model in ("none", "no_vocab")):
        raise LoadError("this file holds no tokenizer; it can only be run on token ids")
    if not isinstance(model, str) or model not in DEFAULT_IDS:
        raise LoadError(f"tokenizer model {str(model)[:40]!r} is not supported; known: {', '.join(DEFAULT_IDS)}")
    tokens = list(_strings(metadata, "tokens"))
    ids = _index(tokens)
    given = {name: _id(metadata, name, len(tokens)) for name in ("bos", "eos", "eot", "eom", "unknown")}
    given |= {k: i for k, i in DEFAULT_IDS[model].items() if given[k] is None and i < len(tokens)}
    fim = [_marker(metadata, ids, len(tokens), keys, names) for keys, names in _FIM]
    project, file = (_marker(metadata, ids, len(tokens), keys, names) for keys, names in _FILES)
    types = _types(metadata, tokens, ids, guess_bytes=model != "gpt2")
    types[list(named(ids, END_NAMES) | {i for i in (*fim, project, file) if i is not None})] = CONTROL
    ends = {i for k in ("eos", "eot", "eom") if (i := given[k]) is not None} | named(ids, END_NAMES)
    if (i := ids.get("</s>")) is not None and types[i] == CONTROL:  # in some vocabularies it is an HTML tag
        ends.add(i)
    return Vocabulary(
        model=model,
        tokens=tokens,
        ids=ids,
        types=types,
        scores=_numbers(metadata, "scores", len(tokens)).astype(np.float64),
        merges=_strings(metadata, "merges") if model in ("gpt2", "gemma4") else (),
        bos=given["bos"],
        eos=given["eos"],
        unknown=given["unknown"],
        ends=frozenset(ends),
        fim=_all_three(fim),
        files=(project, file),
    )


def flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    """The yes or no under `tokenizer.ggml.<name>`."""
    value = metadata.get(f"tokenizer.ggml.{name}", default)
    if not isinstance(value, (bool, np.bool_)):
        raise LoadError(f"metadata key tokenizer.ggml.{name} must be true or false, not {str(value)[:40]}")
    return bool(value)


def named(ids: Mapping[str, int], names: Iterable[str]) -> set[int]:
    """Ids of those of the names that are tokens."""
    return {ids[n] for n in names if n in ids}


def fim_by_name(ids: Mapping[str, int]) -> tuple[int, int, int] | None:
    """Ids of the fill-in-the-middle tokens that a vocabulary has under a known name: prefix, suffix, middle."""
    return _all_three([_marker({}, ids, 0, keys, names) for keys, names in _FIM])


def files_by_name(ids: Mapping[str, int]) -> tuple[int | None, int | None]:
    """Ids of the tokens that stand before a project's name and before a file's, under a known name."""
    project, file = (_marker({}, ids, 0, keys, names) for keys, names in _FILES)
    return project, file


def _strings(metadata: Mapping[str, Any], name: str) -> Sequence[str]:
    value = metadata.get(f"tokenizer.ggml.{name}")
    if value is None:
        raise LoadError(f"metadata key tokenizer.ggml.{name} is missing")
    listed = isinstance(value, (list, tuple)) and all(type(v) is str for v in value)
    if not listed and not isinstance(value, StringArray):
        raise LoadError(f"metadata key tokenizer.ggml.{name} must be a list of strings")
    if len(value) > MAX_STRINGS:
        raise LoadError(f"metadata key tokenizer.ggml.{name} lists {len(value)} strings; {MAX_STRINGS} are the limit")
    return cast(Sequence[str], value)


def _numbers(metadata: Mapping[str, Any], name: str, count: int) -> NDArray[Any]:
    """`count` finite numbers, zeros where the key is missing."""
    value = np.asarray(metadata.get(f"tokenizer.ggml.{name}", np.zeros(count, np.float32)))
    if value.ndim != 1 or value.dtype.kind not in "iuf" or value.size < count:
        raise LoadError(f"metadata key tokenizer.ggml.{name} must hold {count} numbers, one for each token")
    if not np.isfinite(value).all():
        raise LoadError(f"metadata key tokenizer.ggml.{name} holds a number that is not finite")
    return value[:count]


def _index(tokens: list[str]) -> dict[str, int]:
    """Ids by text; the first id of a text that several tokens have, as in llama.cpp."""
    ids = dict(zip(reversed(tokens), range(len(tokens) - 1, -1, -1), strict=True))
    if len(ids) < len(tokens):
        _warn_of_repeated(tokens, ids)
    ids.pop("", None)  # padding
    if not ids:
        raise LoadError("the vocabulary is empty")
    return ids


def _warn_of_repeated(tokens: Sequence[str], ids: Mapping[str, int]) -> None:
    repeated = [token for i, token in enumerate(tokens) if token and ids[token] != i]
    if repeated:
        first = f"{repeated[0][:40]!r}, now token {ids[repeated[0]]}"
        _log.warning("%d tokens repeat the text of another; text becomes the first of them (%s)", len(repeated), first)


def _types(
    metadata: Mapping[str, Any], tokens: list[str], ids: Mapping[str, int], guess_bytes: bool
) -> NDArray[np.int8]:
    types = _numbers(metadata, "token_type", len(tokens))
    if types.min() < 0 or types.max() > BYTE:
        i = int(np.argmax((types < 0) | (types > BYTE)))
        raise LoadError(f"token {i} ({tokens[i][:40]!r}) has type {types[i]}, which is not known")
    types = types.astype(np.int8)
    if guess_bytes and "tokenizer.ggml.token_type" not in metadata:
        types[list(named(ids, (f"<0x{b:02X}>" for b in range(256))))] = BYTE
    for at in np.flatnonzero(types == BYTE):
        byte_value(tokens[at])
    return types


def _id(metadata: Mapping[str, Any], name: str, count: int) -> int | None:
    """The id under the key `tokenizer.ggml.<name>_token_id`; None for no key, -1, or an id that no token has."""
    key = f"tokenizer.ggml.{name}_token_id"
    value = metadata.get(key)
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (type(value) is int and value in (-1, 2**32 - 1)):
        return None
    if type(value) is not int:
        raise LoadError(f"metadata key {key} is {str(value)[:40]}; it must be the id of one of {count} tokens")
    if not 0 <= value < count:
        _log.warning("metadata key %s is %d and is ignored: there are %d tokens", key, value, count)
        return None
    return value


def _marker(
    metadata: Mapping[str, Any], ids: Mapping[str, int], count: int, keys: Sequence[str], names: Sequence[str]
) -> int | None:
    """The id under the first of the keys, else of the first of the names; `count`: tokens, those without text, too."""
    given = (_id(metadata, key, count) for key in keys)
    named = (ids.get(name) for name in names)
    return next((i for i in (*given, *named) if i is not None), None)


def _all_three(fim: Sequence[int | None]) -> tuple[int, int, int] | None:
    prefix, suffix, middle = fim
    return None if prefix is None or suffix is None or middle is None else (prefix, suffix, middle)
