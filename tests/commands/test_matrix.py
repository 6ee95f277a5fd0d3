"""Every natural spelling of a command line, a row each in matrix.txt, and what it gives."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import ternrun
from ternrun import cli
from ternrun.errors import UsageError
from tests.commands.conftest import TEMPLATE
from tests.fakes import fake_gguf, fake_weights

ROWS = [
    tuple(part.strip() for part in line.split(" | ", 2))
    for line in Path(__file__).with_name("matrix.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files that rows name; they lie in the current folder, so that rows read as they are typed."""
    folder = tmp_path_factory.mktemp("matrix")
    weights = fake_weights("llama")
    fake_gguf(folder / "tiny.gguf", weights)
    fake_gguf(folder / "other.gguf", weights)
    fake_gguf(folder / "chat.gguf", weights, tokenizer__chat_template=TEMPLATE)
    (folder / "folder").mkdir()
    (folder / "folder/tiny.gguf").symlink_to(folder / "tiny.gguf")
    (folder / "text.txt").write_text("ab")
    (folder / "long.txt").write_text("ab" * 100)
    with ternrun.load(folder / "tiny.gguf") as model:  # kernels are compiled here: rows compare standard error
        model.complete("ab", max_tokens=3)
    named = {"TINY": "tiny.gguf", "OTHER": "other.gguf", "CHAT": "chat.gguf", "NEW": "out.gguf"}
    return named | {"FOLDER": "folder", "TEXT": "text.txt", "LONG": "long.txt", "HERE": str(folder)}


@pytest.fixture(autouse=True)
def surroundings(names: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(names["HERE"])
    Path("out.gguf").unlink(missing_ok=True)
    for name in ("TERNRUN_DEBUG", "TERNRUN_API_KEYS", "HF_ENDPOINT", "_ARGCOMPLETE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", names["HERE"])
    monkeypatch.setattr("ternrun.server.app.run.serve", serve)
    monkeypatch.setattr("ternrun.bench.suite.run", measure)


def serve(config: Any, openers: Mapping[str, Any], tell: Any) -> None:
    defaults = f" {dict(config.defaults)}" if config.defaults else ""
    raise UsageError(f'serves "{",".join(openers)}"{defaults}')


def measure(options: Any, tell: Any) -> None:
    if options.works == "tg2":
        from ternrun.bench.files import provided

        with provided(options.wanted):
            pass
    raise UsageError(f"measures {options.wanted.model}")


@pytest.fixture
def call(names: Mapping[str, str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"ab")))
        capfd.readouterr()
        try:
            code = cli.main([spelt(word, names) for word in shlex.split(line)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capfd.readouterr())

    return cache(run)


def spelt(text: str, names: Mapping[str, str]) -> str:
    for name, path in names.items():
        text = text.replace(name, path)
    return text


def test_the_matrix_is_long_enough() -> None:
    assert len(ROWS) >= 120
    assert len({line for *_, line in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("code", "gives", "line"), ROWS, ids=[line for *_, line in ROWS])
def test_a_command_line(code: str, gives: str, line: str, call: Callable[..., Any], names: Mapping[str, str]) -> None:
    done, out, err = call(line)
    assert done == int(code), err
    if gives.startswith("= "):
        assert (done, out) == call(gives[2:])[:2]
        assert err == ""
    elif gives.startswith("~ "):
        assert err.startswith(f"ternrun: {gives[2:]}")
        assert err.count("\n") == 1
        assert out
    elif done == 0:
        assert out.startswith(spelt(gives, names))
    else:
        *notes, last = err.splitlines()
        assert last.startswith(f"ternrun: error: {spelt(gives, names)}")
        assert all(" has no effect: " in note for note in notes)
