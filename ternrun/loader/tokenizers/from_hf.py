"""Build a tokenizer from a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ternrun.loader.tokenizers import from_gguf
from ternrun.loader.tokenizers.from_sentencepiece import sentencepiece_metadata
from ternrun.loader.tokenizers.hf_files import TokenizerFiles, read_tokenizer_files
from ternrun.loader.tokenizers.tokenizer_json import build_described, is_wordpiece


def build(folder: Path, rows: int | None = None) -> dict[str, Any]:
    """Return the fields of a `Tokenizer`. `rows`: the rows of the model's embedding, where they are known."""
    return build_from(read_tokenizer_files(folder, rows))


def build_from(files: TokenizerFiles) -> dict[str, Any]:
    """Return the fields of a `Tokenizer` for files that are read already."""
    if files.pieces:
        return from_gguf.build(sentencepiece_metadata(files, files.pieces), None)
    fields, ids, library = build_described(files.description, str(files.path), files.text)
    bos, eos, ends = files.ends(ids)
    framed: list[int] = library.encode("", add_special_tokens=True).ids
    if is_wordpiece(files.description) and len(framed) == 2:  # BERT calls them classifier and separator
        bos, eos = framed
    if bos is None and len(framed) == 1:
        before, *letter = library.encode("a", add_special_tokens=True).ids
        bos = before if letter == library.encode("a", add_special_tokens=False).ids else None
    return fields | {
        "bos_id": bos,
        "eos_id": eos,
        "eos_ids": frozenset(ends),
        # the post-processor decides: beside it, transformers ignores the flags in tokenizer_config.json
        "add_bos": bos is not None and framed[:1] == [bos],
        "add_eos": eos is not None and framed[-1:] == [eos] and len(framed) > (bos == eos),
        "chat_bos": False,  # transformers' rule: the template alone writes a chat prompt
    }
