"""Rows of Hugging Face datasets as documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ternrun.errors import LoadError, MissingExtra
from ternrun.train.data.document import Document
from ternrun.train.data.sources.licenses import all_permissive
from ternrun.train.data.sources.text import COLUMN, row_document


def hf_dataset(
    name: str,
    column: str = COLUMN,
    *,
    data_dir: str = "",
    license_column: str = "",
    skipped: Counter[str] | None = None,
) -> Iterator[Document]:
    """Stream the rows of a dataset's training split; `name` is OWNER/NAME or OWNER/NAME:CONFIGURATION.

    `data_dir` is the folder in the dataset to read. With `license_column`, rows without permissive licenses in that
    column are left out and counted in `skipped`.
    Raises MissingExtra without the datasets package, LoadError if the dataset cannot be read or lacks a column.
    """
    for number, row in enumerate(_rows(name, data_dir)):
        document = row_document(_cell(row, column, name), column, f"{name}:{number}", name)
        if not license_column:
            yield document
        elif license := all_permissive(_cell(row, license_column, name)):
            yield Document(document.name, document.group, license, document.text)
        elif skipped is not None:
            skipped["no permissive license"] += 1


def _cell(row: Mapping[str, Any], column: str, name: str) -> Any:
    if column not in row:
        raise LoadError(f"{name} has no column {column!r}; it has {', '.join(row)}")
    return row[column]


def _rows(name: str, data_dir: str) -> Iterator[dict[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise MissingExtra("reading Hugging Face datasets", "data") from None
    path, _, part = name.partition(":")
    try:
        yield from load_dataset(path, part or None, data_dir=data_dir or None, split="train", streaming=True)
    except Exception as error:  # the hub, HTTP and Arrow raise many types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LoadError(f"the dataset {name} cannot be read: {reason}") from None
