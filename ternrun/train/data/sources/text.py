"""Texts as documents: plain files and folders, JSON lines, Parquet and tiny Shakespeare."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ternrun.errors import LoadError, MissingExtra, UsageError
from ternrun.loader.tokenizers.tokenizer import well_formed
from ternrun.train.data.document import Document

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_TIMEOUT = 60  # seconds
COLUMN = "text"


def text_files(path: Path) -> Iterator[Document]:
    """One document per file. Raises UsageError if there is no file, LoadError if a file is not UTF-8."""
    for file in _files(path, ""):
        yield Document(file.name, file.parent.name, "as given", _read(file))


def jsonl_files(path: Path, column: str = COLUMN) -> Iterator[Document]:
    """One document per line, or per item of a .json file's list: the value of the key `column`.

    Raises LoadError with the number of a bad line.
    """
    for file in _files(path, ".jsonl", ".ndjson", ".json"):
        for number, row in _rows(file):
            if not isinstance(row, dict) or column not in row:
                raise LoadError(f"{file} line {number} is not a JSON object with the key {column!r}{_columns(row)}")
            yield row_document(row[column], column, f"{file.name}:{number}", file.stem)


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    """The numbered values of a file of JSON lines or one JSON list; the value of an invalid line is None."""
    text = _read(file)
    if file.suffix == ".json" and text.lstrip().startswith("["):
        try:
            yield from enumerate(json.loads(text), 1)
        except (ValueError, RecursionError) as error:
            raise LoadError(f"{file} is not JSON: {error}") from None
        return
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also split inside JSON strings
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield number, row


def _columns(row: Any) -> str:
    """A hint with the text columns that the row has instead."""
    held = [repr(key[:40]) for key, value in row.items() if isinstance(value, str)] if isinstance(row, dict) else []
    return f"; it has {', '.join(held[:8])}: choose one with --column" if held else ""


def parquet_files(path: Path, column: str = COLUMN) -> Iterator[Document]:
    """One document per row, read in batches. Raises MissingExtra without pyarrow, LoadError for a bad file."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("reading Parquet files", "data") from None
    for file in _files(path, ".parquet"):
        number = 0
        try:
            for batch in parquet.ParquetFile(file).iter_batches(columns=[column]):
                for value in batch.column(column).to_pylist():
                    number += 1
                    yield row_document(value, column, f"{file.name}:{number}", file.stem)
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            raise LoadError(f"{file} is not a Parquet file with a column {column!r}: {error}") from None


def shakespeare(file: Path | None = None) -> Document:
    """Tiny Shakespeare, from a file or downloaded; its sha256 is checked. Raises LoadError."""
    if file is None:
        try:
            with urllib.request.urlopen(SHAKESPEARE_URL, timeout=_TIMEOUT) as reply:
                data = reply.read(4_000_000)
        except OSError as error:
            raise LoadError(
                f"could not download {SHAKESPEARE_URL}: {error}; give the file with shakespeare:FILE"
            ) from None
    else:
        data = _read(file).encode()
    if (found := hashlib.sha256(data).hexdigest()) != SHAKESPEARE_SHA256:
        raise LoadError(f"this is not tiny Shakespeare: its sha256 is {found}, not {SHAKESPEARE_SHA256}")
    return Document("tinyshakespeare", "shakespeare", "public domain", data.decode())


def row_document(value: Any, column: str, name: str, group: str) -> Document:
    """A table cell as a document, with lone surrogates replaced by U+FFFD. Raises LoadError if it is not text."""
    if not isinstance(value, str):
        raise LoadError(f"{name} holds no text under {column!r}")
    return Document(name, group, "as given", well_formed(value))


def _files(path: Path, *suffixes: str) -> list[Path]:
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    files = [path] if path.is_file() else (p for p in path.rglob("*") if p.is_file() and p.name.endswith(suffixes))
    found = sorted(files)
    if not found:
        raise UsageError(f"{path} holds no {suffixes[0] or 'text'} file")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise LoadError(f"{path} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error}") from None
