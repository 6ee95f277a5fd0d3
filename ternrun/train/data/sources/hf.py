"""Rows of Hugging Face datasets as documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ternrun.errors import LoadError, MissingExtra
from ternrun.train.data.document import Document
from ternrun.train.data.sources.licences import all_permissive
from ternrun.train.data.sources.text import COLUMN, row_document


def hf_dataset(
    name: str,
    column: str = COLUMN,
    *,
    data_dir: str = "",
    licence_column: str = "",
    skipped: Counter[str] | None = None,
) -> Iterator[Document]:
    """Rows of a dataset's training part, streamed; `name` may carry a configuration: "owner/name:part".

    `data_dir`: the folder in the dataset to read. With `licence_column` only rows whose own licence, or each of a list
    of them, is permissive are documents; `skipped` counts the others.
    Raises MissingExtra without datasets, LoadError where the dataset cannot be had or lacks a column.
    """
    for number, row in enumerate(_rows(name, data_dir)):
        document = row_document(_cell(row, column, name), column, f"{name}:{number}", name)
        if not licence_column:
            yield document
        elif licence := all_permissive(_cell(row, licence_column, name)):
            yield Document(document.name, document.group, licence, document.text)
        elif skipped is not None:
            skipped["no permissive licence"] += 1


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
    except Exception as error:  # of the hub, of HTTP, of Arrow: there is no list of them
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LoadError(f"the dataset {name} cannot be read: {reason}") from None
