"""What the files of a Hugging Face folder say about its tokenizer, read once and merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ternrun.loader.json_files import read_json
from ternrun.loader.tokenizers.added_tokens import content_of, merge_added_tokens, named_tokens
from ternrun.loader.tokenizers.sentencepiece_model import NAMES as SENTENCEPIECE_NAMES
from ternrun.loader.tokenizers.sentencepiece_model import SentencePieceModel, read_sentencepiece
from ternrun.loader.tokenizers.token_bytes import CONTROL, UNKNOWN, USER_DEFINED
from ternrun.loader.tokenizers.vocabulary import END_NAMES, named


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """`description` is tokenizer.json with all added tokens; `text` is the file itself where it has them all.

    For a folder that has a SentencePiece model alone, `pieces` is that model, and `description` lists its tokens.
    """

    path: Path
    description: dict[str, Any]
    text: str | None
    pieces: SentencePieceModel | None
    named: dict[str, Any]  # special tokens by role, such as bos_token
    config: dict[str, Any]  # tokenizer_config.json
    models: tuple[dict[str, Any], ...]  # generation_config.json, config.json

    def ends(self, ids: Mapping[str, int]) -> tuple[int | None, int | None, set[int]]:
        """Return the first and the last token of a sequence, and all that end generation."""
        known = set(ids.values())
        ends = named(ids, END_NAMES)
        first: dict[str, int | None] = {}
        for which in ("bos", "eos"):
            token = content_of(self.named.get(f"{which}_token"))
            listed = [ids.get(token)] if token is not None else []
            for table in self.models:
                value = table.get(f"{which}_token_id")
                listed += value if isinstance(value, list) else [value]
            found = [i for i in listed if type(i) is int and i in known]
            first[which] = next(iter(found), None)
            ends |= set(found) if which == "eos" else set()
        return first["bos"], first["eos"], ends


def read_tokenizer_files(folder: Path, rows: int | None = None) -> TokenizerFiles:
    """Read a folder's tokenizer. `rows`: the rows of the model's embedding, where they are known.

    Raises LoadError for a file that is missing, too large or damaged.
    """
    path = _found(folder)
    pieces = None if path.suffix == ".json" else read_sentencepiece(path)
    description = _listed(pieces) if pieces else read_json(path)
    config, special_map, added, generation, model = (
        _optional(folder / name)
        for name in (
            "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json",
            "config.json",
        )
    )  # fmt: skip
    merged = merge_added_tokens(description, config, special_map, added, rows)
    text = path.read_text(encoding="utf-8") if merged is description and not pieces else None
    roles = named_tokens(config, special_map)
    if pieces:
        known = {"bos_token": pieces.bos, "eos_token": pieces.eos}
        roles = {role: pieces.tokens[token] for role, token in known.items() if token is not None} | roles
    return TokenizerFiles(path, merged, text, pieces, roles, config, (generation, model))


def _found(folder: Path) -> Path:
    """The folder's tokenizer.json; where it has none, its SentencePiece model."""
    path = folder / "tokenizer.json"
    models = (folder / name for name in SENTENCEPIECE_NAMES)
    return path if path.is_file() else next((model for model in models if model.is_file()), path)


def _listed(pieces: SentencePieceModel) -> dict[str, Any]:
    """The special tokens of a SentencePiece model as a tokenizer.json lists them."""
    special = {CONTROL: True, UNKNOWN: True, USER_DEFINED: False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": i, "content": token, **flags, "special": special[kind]}
        for i, (token, kind) in enumerate(zip(pieces.tokens, pieces.types, strict=True))
        if kind in special
    ]
    vocab = {token: i for i, token in enumerate(pieces.tokens)}
    return {"added_tokens": added, "model": {"type": "SentencePiece", "vocab": vocab}}


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
