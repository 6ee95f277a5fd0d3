"""`ternrun pull`: one line of output, and one sentence where it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fake_hub import fake_hub

Run = Callable[..., Any]


def pull(endpoint: str, *argv: str | Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the hub's address is read from the environment once."""
    command = [sys.executable, "-m", "ternrun", "pull", *map(str, argv)]
    environment = os.environ | {"HF_ENDPOINT": endpoint}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_prints_the_path_and_the_reason(tmp_path: Path) -> None:
    with fake_hub() as hub:
        hub.files = {"m-Q8_0.gguf": b"x" * 2000, "m-TQ2_0.gguf": b"y" * 1000}
        done = pull(hub.url, "me/model", "--to", tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{tmp_path / 'm-TQ2_0.gguf'}\n"
        assert done.stderr == "ternrun: downloading m-TQ2_0.gguf, 1.0 kB (TQ2_0 of 2 GGUF files: ternary weights)\n"
        done = pull(hub.url, "me/model", "m-Q8_0.gguf", "--to", tmp_path)
        assert done.stdout == f"{tmp_path / 'm-Q8_0.gguf'}\n"


def test_names_of_a_repository_are_shown_without_control_characters(tmp_path: Path) -> None:
    with fake_hub() as hub:
        hub.files = {"\x1b[2J/m-TQ2_0.gguf": b"x"}
        done = pull(hub.url, "me/model", "--to", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("ternrun: downloading \ufffd[2J/m-TQ2_0.gguf, 1 B")


def test_an_interrupted_download_is_one_sentence_and_resumes(tmp_path: Path) -> None:
    with fake_hub() as hub:
        hub.files, hub.cut = {"m.gguf": bytes(30_000_000)}, 12_000_000
        done = pull(hub.url, "me/model", "--to", tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("ternrun: downloading m.gguf, 30.0 MB")
        assert done.stderr.splitlines()[-1].startswith("ternrun: error: ")
        assert "run the same command again to resume" in done.stderr
        hub.down = None
        assert pull(hub.url, "me/model", "--to", tmp_path).returncode == 0
        assert hub.ranges[-1] == "bytes=10485760-"
    assert (tmp_path / "m.gguf").stat().st_size == 30_000_000


def test_an_absent_repository_is_one_sentence(ternrun: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        done = ternrun("pull", "me/absent", "--to", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "no repository 'me/absent'" in done.err
    assert done.err.count("\n") == 1


def test_without_the_extra_it_says_what_to_install(
    ternrun: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    done = ternrun("pull", "me/model", "--to", tmp_path)
    assert done.code == 2
    assert "pip install 'ternrun[hub]'" in done.err


def test_a_folder_that_cannot_be_written(ternrun: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with fake_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        hub.files = {"m.gguf": b"x"}
        done = ternrun("pull", "me/model", "--to", tmp_path / "file")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert str(tmp_path / "file") in done.err


def test_a_folder_in_a_home_that_nobody_has() -> None:
    done = pull("http://localhost:1", "me/model", "--to", "~nobody.of.that.name/x")
    assert done.returncode == 2
    assert "begins with a home folder that is not known" in done.stderr
