"""Every command that takes a model says what a path is that is none, in one sentence, before it does anything."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
COMMANDS: dict[str, list[str]] = {
    "complete": ["complete", "-m", "PATH", "hi", "-n", "1"],
    "chat": ["chat", "-m", "PATH", "--system", "be brief"],
    "serve": ["serve", "-m", "PATH", "--port", "0"],
    "inspect": ["inspect", "PATH"],
    "eval": ["eval", "PATH", "--text", "notes.txt"],
    "tokenize": ["tokenize", "PATH", "hi"],
    "detokenize": ["detokenize", "PATH", "1"],
    "convert": ["convert", "PATH", "out.gguf", "--type", "f16"],
    "bench": ["bench", "-m", "PATH", "--work", "pp8", "--runs", "1"],
}


def write(folder: Path) -> dict[str, str]:
    """Paths, and words of the sentence for each."""
    run, mlx = folder / "run", folder / "mlx"
    for made in (run, mlx):
        made.mkdir()
    (run / "log.jsonl").touch()
    (run / "best.safetensors").write_bytes(b"x")
    (mlx / "config.json").write_text('{"model_type": "llama", "quantization": {"group_size": 64, "bits": 4}}')
    (mlx / "model.safetensors").write_bytes(b"x")
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    files = {
        "page.gguf": b"<!DOCTYPE html><title>\x1b[2J404</title>",
        "whole.gguf.part1of2": b"GGUF\x03\0\0\0",
        "model.gguf.incomplete": b"GGUF\x03\0\0\0",
        "notes.txt": b"once upon a time",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {
        "run": "ternrun train export run/best.safetensors model.gguf", "mlx": "mlx_lm.convert",
        "pytorch_model.bin": "convert_hf_to_gguf.py", "page.gguf": "is a web page",
        "whole.gguf.part1of2": "cat whole.gguf.part?of2 > whole.gguf", "model.gguf.incomplete": "unfinished download",
        "notes.txt": "is a text",
    }  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_model_is_one_sentence(
    command: str, ternrun: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sentences = write(tmp_path)
    before = set(tmp_path.iterdir())
    for path, words in sentences.items():
        done = ternrun(*(path if word == "PATH" else word for word in COMMANDS[command]))
        assert (done.code, done.out) == (2, ""), path
        assert words in done.err
        assert done.err.startswith(f"ternrun: error: {path} ")
        assert done.err.count("\n") == 1
        assert "\x1b" not in done.err
    assert set(tmp_path.iterdir()) == before
