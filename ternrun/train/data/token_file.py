"""Token files: flat little-endian u16 (or u32 for large vocabularies), memory-mapped, with a manifest.

A data folder holds `train.bin`, `val.bin`, `tokenizer.json`, `manifest.json` and, with --holdout, `holdout.bin`. Every
document ends with the tokenizer's end token, which marks the document boundaries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ternrun.errors import LoadError
from ternrun.progress import Progress
from ternrun.train.data.tokenizer import END, load
from ternrun.train.data.tokenizer_check import check_coverage

_BATCH = 256  # documents per call of the tokenizers library, which tokenizes them in parallel


@dataclass(slots=True)
class Part:
    """The size and sha256 of one token file."""

    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    sha256: str = ""


@dataclass(slots=True)
class Manifest:
    """The contents of a data folder and their origin. Field names are the keys of manifest.json."""

    dtype: str
    vocab_size: int
    tokenizer_sha256: str
    groups: dict[str, str] = field(default_factory=dict)  # package or source -> license
    holdout: list[str] = field(default_factory=list)
    parts: dict[str, Part] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)  # reason -> files
    repeated: dict[str, int] = field(default_factory=dict)  # group -> times that it is in `train`
    functions: bool = False  # whether `train` also holds each function as a document
    documented: int = 1  # times that short functions with a docstring are included
    bare: int = 0  # times that these are included without docstring and annotations

    def save(self, folder: Path) -> None:
        """Write `manifest.json`."""
        (folder / "manifest.json").write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json`. Raises LoadError if the folder is not a data folder."""
    try:
        raw: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        parts = {name: Part(**part) for name, part in raw.pop("parts").items()}
        return Manifest(**raw, parts=parts)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LoadError(f"{folder} is not a folder made by `ternrun train data`: {error}") from None


def tokenizer_of(folder: Path, manifest: Manifest) -> Tokenizer:
    """The tokenizer of a folder's tokens. Raises LoadError if tokenizer.json was replaced by another one."""
    path = folder / "tokenizer.json"
    tokenizer = load(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != manifest.tokenizer_sha256:
        raise LoadError(f"{path} is not the tokenizer that the tokens beside it were made with")
    return tokenizer


def write_tokens(path: Path, texts: Sequence[str], tokenizer: Tokenizer, dtype: str) -> Part:
    """Tokenize `texts` into `path`, each followed by the end token.

    Raises UsageError if a text has a character without a token.
    """
    part, digest, end = Part(), hashlib.sha256(), tokenizer.token_to_id(END)
    tokenizer.encode_special_tokens = True  # the end token's name inside a text is ordinary text
    with path.open("wb") as file, Progress(f"tokenizing {path.stem}", "documents") as progress:
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            check_coverage(tokenizer, batch)
            for text, encoding in zip(batch, tokenizer.encode_batch_fast(batch, add_special_tokens=False), strict=True):
                data = np.asarray([*encoding.ids, end], dtype).tobytes()
                file.write(data)
                digest.update(data)
                part.documents += 1
                part.tokens += len(encoding.ids) + 1
                part.text_bytes += len(text.encode())
            progress.update(part.documents, len(texts))
    part.sha256 = digest.hexdigest()
    return part


def open_tokens(folder: Path, name: str, manifest: Manifest) -> NDArray[Any]:
    """Memory-map the tokens (n,) of one part. Raises LoadError if the file does not match its manifest."""
    path = folder / f"{name}.bin"
    part = manifest.parts.get(name)
    if part is None or not path.is_file():
        raise LoadError(f"{folder} has no {name} tokens")
    if part.tokens == 0:
        raise LoadError(f"{path} is empty: the corpus gave no {name} tokens")
    dtype = np.dtype(manifest.dtype)
    if path.stat().st_size != part.tokens * dtype.itemsize:
        raise LoadError(
            f"{path} has {path.stat().st_size} bytes, but its manifest says {part.tokens} tokens of {dtype.itemsize}"
        )
    tokens = np.memmap(path, dtype, "r")
    if (largest := int(tokens.max())) >= manifest.vocab_size:
        raise LoadError(f"{path} holds token id {largest}, beyond the vocabulary of {manifest.vocab_size}")
    return tokens
