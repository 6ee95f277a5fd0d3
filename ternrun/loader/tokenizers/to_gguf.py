"""The text side of a Hugging Face folder as GGUF metadata: special tokens, chat template, vocabulary."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.loader.json_files import read_json
from ternrun.loader.tokenizers import carried
from ternrun.loader.tokenizers.from_hf import build_from
from ternrun.loader.tokenizers.from_sentencepiece import sentencepiece_metadata
from ternrun.loader.tokenizers.hf_files import TokenizerFiles, read_tokenizer_files
from ternrun.loader.tokenizers.pretokenizers import PRETOKENIZERS
from ternrun.loader.tokenizers.probe import behavior, peculiarities, probe_texts
from ternrun.loader.tokenizers.token_bytes import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from ternrun.loader.tokenizers.tokenizer import Tokenizer
from ternrun.loader.tokenizers.unigram import charsmaps

_NO_DEFAULTS = {f"tokenizer.ggml.{name}_token_id": 2**32 - 1 for name in ("bos", "eos")}  # no such token
_log = logging.getLogger("ternrun.loader")
MAX_TEMPLATE = 1 << 20


def chat_metadata(folder: Path) -> dict[str, Any]:
    """The chat template, under GGUF's key. Raises LoadError for a damaged file."""
    template: Any = None
    if (folder / "chat_template.jinja").is_file():
        template = _read_text(folder / "chat_template.jinja")
    elif (folder / "tokenizer_config.json").is_file():
        template = read_json(folder / "tokenizer_config.json").get("chat_template")
        if isinstance(template, list):  # several, by name
            named = (t.get("template") for t in template if isinstance(t, dict) and t.get("name") == "default")
            template = next(named, None)
    return {"tokenizer.chat_template": template} if isinstance(template, str) else {}


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEMPLATE:
            raise LoadError(f"{path} is larger than a chat template should be")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise LoadError(f"{path} cannot be read: {e}") from e


def vocabulary_metadata(folder: Path, vocab_size: int) -> dict[str, Any]:
    """Return a folder's tokenizer as `tokenizer.ggml.*` keys of `vocab_size` tokens.

    Where no such keys give the same ids and texts on the probe, keys of ternrun's carry the tokenizer beside them, and
    a warning says what other programs will do otherwise. Raises LoadError for a tokenizer that is damaged or of a kind
    that a GGUF file cannot hold.
    """
    files = read_tokenizer_files(folder, vocab_size)
    if files.pieces:
        return sentencepiece_metadata(files, files.pieces, vocab_size)
    model = files.description.get("model")
    if not isinstance(model, dict) or model.get("type") not in ("BPE", "Unigram"):
        kind = model.get("type") if isinstance(model, dict) else None
        raise LoadError(f"{files.path} is of kind {str(kind)[:40]}; a GGUF file can only carry BPE and Unigram")
    true = Tokenizer(**build_from(files))
    metadata = _tokens(files, model, vocab_size) | _stated(true)
    probe = probe_texts(true)
    wanted = [behavior(true, text) for text in probe]
    best, most = dict[str, Any](), -1
    for candidate in _candidates(files.description, metadata["tokenizer.ggml.tokens"]):
        candidate = (_NO_DEFAULTS if candidate["tokenizer.ggml.model"] != "gpt2" else {}) | candidate
        made = Tokenizer.from_gguf(candidate | metadata)
        equal = sum(behavior(made, text) == one for text, one in zip(probe, wanted, strict=True))
        if equal == len(probe):
            return candidate | metadata | _ends(true, made)
        best, most = max((best, most), (candidate, equal), key=lambda pair: pair[1])
    metadata = best | metadata | carried.pack(files.description)
    made = Tokenizer.from_gguf(metadata)
    if [behavior(made, text) for text in probe] != wanted:
        raise LoadError(f"{files.path} encodes text in a way that a GGUF file cannot carry")
    _log.warning(
        "%s: GGUF's keys cannot state %s; ternrun reads it from %s, other programs encode some texts otherwise",
        files.path, peculiarities(files.description), carried.DESCRIPTION,
    )  # fmt: skip
    return metadata | _ends(true, made)


def _stated(true: Tokenizer) -> dict[str, Any]:
    """Begin and end tokens, and where they are added."""
    keys: dict[str, Any] = {
        "tokenizer.ggml.add_bos_token": true.add_bos,
        "tokenizer.ggml.add_eos_token": true.add_eos,
    }
    for which, token in (("bos", true.bos_id), ("eos", true.eos_id)):
        if token is not None:
            keys[f"tokenizer.ggml.{which}_token_id"] = token
    return keys | ({carried.CHAT_BOS: true.chat_bos} if true.chat_bos != true.add_bos else {})


def _ends(true: Tokenizer, made: Tokenizer) -> dict[str, Any]:
    """What ends generation, where the usual keys name other tokens."""
    return {} if made.eos_ids == true.eos_ids else {carried.ENDS: sorted(true.eos_ids)}


def _candidates(description: Mapping[str, Any], tokens: list[str]) -> Iterator[dict[str, Any]]:
    """Ways in which GGUF could express the rules: one name per distinct row of pre-tokenizers, or SentencePiece's."""
    model = description["model"]
    if model["type"] == "Unigram":
        yield from _unigram(description, tokens)
        return
    merges = [" ".join(m) if isinstance(m, list) else m for m in model.get("merges", ())]
    if "ByteLevel" in str(description.get("pre_tokenizer")) + str(description.get("decoder")):
        rows: dict[int, str] = {}
        for name, row in PRETOKENIZERS.items():
            rows.setdefault(id(row), name)
        for name in sorted(rows.values(), key=lambda n: n not in ("llama-bpe", "qwen2", "gpt-2")):
            yield {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name, "tokenizer.ggml.merges": merges}
        return
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    scores = [-float(ranks.get(token, 0)) for token in tokens]
    for prefix in (True, False):
        yield {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.add_space_prefix": prefix,
            "tokenizer.ggml.scores": scores,
        }


def _unigram(description: Mapping[str, Any], tokens: list[str]) -> Iterator[dict[str, Any]]:
    pieces = description["model"]["vocab"]
    scores = [float(piece[1]) for piece in pieces][: len(tokens)]
    keys: dict[str, Any] = {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.scores": scores + [0.0] * (len(tokens) - len(scores)),
    }
    unknown = description["model"].get("unk_id")
    if type(unknown) is int:
        keys["tokenizer.ggml.unknown_token_id"] = unknown
    charsmap = next(charsmaps(description), b"")
    if charsmap:
        keys["tokenizer.ggml.precompiled_charsmap"] = np.frombuffer(charsmap, np.uint8)
    for prefix in (True, False):
        for merge_spaces in (True, False):
            yield keys | {
                "tokenizer.ggml.add_space_prefix": prefix,
                "tokenizer.ggml.remove_extra_whitespaces": merge_spaces,
            }


def _tokens(files: TokenizerFiles, model: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """Texts and types of all tokens; rows of the embedding that no token stands for are padding."""
    vocab, added = model.get("vocab"), files.description.get("added_tokens", [])
    if isinstance(vocab, list):
        vocab = {piece[0]: i for i, piece in enumerate(vocab) if isinstance(piece, list) and piece}
    if not isinstance(vocab, dict) or not isinstance(added, list):
        raise LoadError(f"{files.path} has no usable vocabulary")
    texts = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [UNUSED] * vocab_size

    def place(token: Any, text: Any, kind: int) -> None:
        if type(token) is not int or not 0 <= token < vocab_size or not isinstance(text, str):
            raise LoadError(f"{files.path}: token {str(text)[:40]!r} has id {token} of {vocab_size}")
        texts[token], types[token] = text, kind

    unknown = model.get("unk_token")
    if unknown is None and type(model.get("unk_id")) is int:
        unknown = next((text for text, token in vocab.items() if token == model["unk_id"]), None)
    for text, token in vocab.items():
        is_byte = model.get("byte_fallback") and len(text) == 6 and text.startswith("<0x") and text.endswith(">")
        place(token, text, BYTE if is_byte else UNKNOWN if text == unknown else NORMAL)
    for entry in added:
        if isinstance(entry, dict) and entry.get("content") != unknown:
            place(entry.get("id"), entry.get("content"), CONTROL if entry.get("special") else USER_DEFINED)
    return {"tokenizer.ggml.tokens": texts, "tokenizer.ggml.token_type": types}
