"""Rows of Hugging Face datasets as documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ternrun.errors import LoadError, MissingExtra
from ternrun.train.data.document import Document
from ternrun.train.data.text_source import COLUMN, row_document


def hf_dataset(name: str, column: str = COLUMN, split: str = "train") -> Iterator[Document]:
    """Rows of a dataset, streamed; `name` may carry a configuration: "owner/name:part".

    Raises MissingExtra without datasets, LoadError where the dataset cannot be had or lacks the column.
    """
    for number, row in enumerate(_rows(name, split)):
        if column not in row:
            raise LoadError(f"{name} has no column {column!r}; it has {', '.join(row)}")
        yield row_document(row[column], column, f"{name}:{number}", name)


def _rows(name: str, split: str) -> Iterator[dict[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise MissingExtra("reading Hugging Face datasets", "data") from None
    path, _, part = name.partition(":")
    try:
        yield from load_dataset(path, part or None, split=split, streaming=True)
    except Exception as error:  # of the hub, of HTTP, of Arrow: there is no list of them
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LoadError(f"the dataset {name} cannot be read: {reason}") from None
