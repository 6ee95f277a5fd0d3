"""The model that the package carries: found without a name, whole, and in the wheel."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import ternrun
from ternrun.errors import UsageError
from ternrun.loader import embedded
from tests.fakes import fake_gguf, fake_weights

ROOT = Path(__file__).parent.parent


def test_a_path_is_a_path_and_a_file_of_that_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert embedded.located("some/model.gguf") == Path("some/model.gguf")
    (tmp_path / embedded.NAME).touch()
    assert embedded.located(embedded.NAME) == Path(embedded.NAME)


def test_without_a_name_the_carried_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(embedded, "FILE", fake_gguf(tmp_path / "carried.gguf", fake_weights("llama")))
    for model in (ternrun.load(), ternrun.load(embedded.NAME)):
        with model:
            assert model.complete("ab", max_tokens=2).ids


def test_an_installation_without_one_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "FILE", tmp_path / "absent.gguf")
    with pytest.raises(UsageError, match="this installation carries none: pass -m FILE"):
        ternrun.load()


def test_an_empty_name_is_no_model() -> None:
    with pytest.raises(UsageError, match="the name of the model is empty"):
        ternrun.load("")


def test_the_carried_model_is_the_one_its_card_tells_of_and_writes_python() -> None:
    record = json.loads(embedded.FILE.with_suffix(".json").read_text())
    assert hashlib.sha256(embedded.FILE.read_bytes()).hexdigest() == record["file"]["sha256"]
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


def test_the_wheel_holds_everything_beside_the_model(tmp_path: Path) -> None:
    """Built by setuptools from a copy: what `pip install` would copy into an environment."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ternrun", tmp_path / "ternrun", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, env=environment, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    kept = {p.relative_to(ROOT).as_posix() for p in (ROOT / "ternrun").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert kept - packed == set()
