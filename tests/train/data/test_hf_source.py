"""Datasets of the hub, with a stand-in for the library that streams them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ternrun.errors import LoadError, MissingExtra
from ternrun.train.data.options import PrepareOptions
from ternrun.train.data.prepare import prepare
from ternrun.train.data.sources.hf import hf_dataset
from ternrun.train.data.sources.registry import SourceOptions, read_documents
from ternrun.train.data.token_file import read_manifest

ROWS = [
    {"content": "one", "licences": ["MIT"]},
    {"content": "two", "licences": ["mit", "bsd-3-clause"]},
    {"content": "three", "licences": ["MIT", "GPL-3.0"]},
    {"content": "four", "licences": []},
    {"content": "five", "licences": "Apache-2.0 OR GPL-3.0"},
    {"content": "six", "licences": None},
]


def stand_in(monkeypatch: pytest.MonkeyPatch, load_dataset: Any) -> None:
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))


def test_rows_of_a_dataset_are_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*names: str | None, **settings: Any) -> list[dict[str, Any]]:
        asked.append((names, settings))
        return ROWS

    stand_in(monkeypatch, load_dataset)
    assert [d.text for d in hf_dataset("owner/name:python", "content")][:2] == ["one", "two"]
    list(hf_dataset("owner/name", "content", data_dir="data/python"))
    settings = {"split": "train", "streaming": True}
    assert asked == [
        (("owner/name", "python"), {"data_dir": None, **settings}),
        (("owner/name", None), {"data_dir": "data/python", **settings}),
    ]
    with pytest.raises(LoadError, match=r"has no column 'text'; it has content, licences"):
        list(hf_dataset("owner/name"))
    with pytest.raises(LoadError, match=r"has no column 'license'"):
        list(hf_dataset("owner/name", "content", license_column="license"))


def test_a_row_s_own_licence_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, lambda *_, **__: ROWS)
    skipped: Counter[str] = Counter()
    found = list(hf_dataset("o/n", "content", license_column="licences", skipped=skipped))
    assert [(d.text, d.license) for d in found] == [("one", "MIT"), ("two", "MIT / BSD"), ("five", "Apache-2.0")]
    assert skipped == {"no permissive license": 3}
    prepare(
        found, tmp_path / "d", PrepareOptions(tokenizer="char", split="tail", val_share=0.4), lambda _: None, skipped
    )
    manifest = read_manifest(tmp_path / "d")
    assert manifest.groups == {"o/n": "MIT / BSD / Apache-2.0"}
    assert manifest.skipped == {"no permissive license": 3}


def test_an_endless_stream_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def endless(*_: Any, **__: Any) -> Iterator[dict[str, Any]]:
        return ({"text": str(i)} for i in count())

    stand_in(monkeypatch, endless)
    said: list[str] = []
    limited = read_documents("hf:o/n", SourceOptions(limit=3), said.append, Counter())
    assert [d.text for d in limited] == ["0", "1", "2"]
    assert said == []
    read_documents("hf:o/n", SourceOptions(), said.append, Counter())
    assert "--limit ROWS" in said[0]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": str(i)}) + "\n" for i in range(9)))
    rows = read_documents(f"jsonl:{tmp_path / 'a.jsonl'}", SourceOptions(limit=2), said.append, Counter())
    assert [d.text for d in rows] == ["0", "1"]


def test_what_cannot_be_had_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("it is not on the hub\nand more of this")

    def breaks(*_: Any, **__: Any) -> Iterator[dict[str, Any]]:
        yield {"text": "one"}
        raise ConnectionError

    stand_in(monkeypatch, missing)
    with pytest.raises(LoadError, match=r"the dataset no/such cannot be read: it is not on the hub$"):
        list(hf_dataset("no/such"))
    stand_in(monkeypatch, breaks)
    with pytest.raises(LoadError, match=r"the dataset o/n cannot be read: ConnectionError$"):
        list(hf_dataset("o/n"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"ternrun\[data\]"):
        list(hf_dataset("owner/name"))
