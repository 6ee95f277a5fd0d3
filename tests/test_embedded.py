"""The model that the package carries: found without a name, and whole."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import ternrun
from ternrun.errors import UsageError
from ternrun.loader import default_model
from tests.fakes import fake_gguf, fake_weights

ROOT = Path(__file__).parent.parent


def test_a_path_is_a_path_and_a_file_of_that_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_model.located("some/model.gguf") == Path("some/model.gguf")
    (tmp_path / default_model.NAME).touch()
    assert default_model.located(default_model.NAME) == Path(default_model.NAME)


def test_without_a_name_the_carried_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(default_model, "FILE", fake_gguf(tmp_path / "carried.gguf", fake_weights("llama")))
    for model in (ternrun.load(), ternrun.load(default_model.NAME)):
        with model:
            assert model.complete("ab", max_tokens=2).ids


def test_an_installation_without_one_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_model, "FILE", tmp_path / "absent.gguf")
    with pytest.raises(UsageError, match="this installation carries none: pass -m FILE"):
        ternrun.load()


def test_an_empty_name_is_no_model() -> None:
    with pytest.raises(UsageError, match="the name of the model is empty"):
        ternrun.load("")


def test_the_carried_model_is_the_one_its_card_tells_of_and_writes_python() -> None:
    record = json.loads(default_model.FILE.with_suffix(".json").read_text())
    assert hashlib.sha256(default_model.FILE.read_bytes()).hexdigest() == record["file"]["sha256"]
    assert record["file"]["bytes"] < 12_000_000
    with ternrun.load() as model:
        assert model.config.vocab_size == record["model"]["vocab_size"]
        assert model.complete("def fibonacci(n):", max_tokens=24).text.startswith("\n    ")


def test_the_readme_shows_what_the_carried_model_writes() -> None:
    block = next(re.finditer(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.S))[1]
    shown = block.split("\n", 1)[1]
    with ternrun.load() as model:
        made = "def fibonacci(n):" + model.complete("def fibonacci(n):", max_tokens=64).text
    assert made.strip() == shown.strip()
    scope: dict[str, Any] = {}
    exec(made, scope)
    assert [scope["fibonacci"](n) for n in range(8)] == [0, 1, 1, 2, 3, 5, 8, 13]
