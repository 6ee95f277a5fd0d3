"""The trainer's commands write over nothing that is there unless --force asks for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ternrun.errors import UsageError
from tests.train.runs import ternrun_train

WRITING: dict[str, tuple[str, list[str]]] = {  # what is written, and the command line for it
    "export": ("m.gguf", ["export", "RUN", "m.gguf"]),
    "export to ONNX": ("m.onnx", ["export", "RUN", "m.onnx"]),
    "tokenizer": ("t.json", ["tokenizer", "notes.txt", "--size", "300", "--out", "t.json"]),
    "average": ("a.safetensors", ["average", "RUN", "RUN", "--out", "a.safetensors"]),
    "card": ("MODEL_CARD.md", ["card", "RUN", "made.gguf", "--evaluation", "e.json"]),
    "card's JSON": ("made.json", ["card", "RUN", "made.gguf", "--evaluation", "e.json"]),
}


def test_a_file_that_is_there_stays_without_force(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("".join(f"line {i} of a text\n" for i in range(300)))
    ternrun_train("export", run_folder, "made.gguf")
    record = {"name": "made.gguf", "file_bytes": Path("made.gguf").stat().st_size}
    Path("e.json").write_text(json.dumps([record]))
    for name, words in WRITING.values():
        Path(name).write_bytes(b"precious")
        words = [str(run_folder) if word == "RUN" else word for word in words]
        with pytest.raises(UsageError, match=f"^{name} is there already; --force writes over it$"):
            ternrun_train(*words)
        assert Path(name).read_bytes() == b"precious"
        if "card" not in words:  # whose evaluation is another test's
            ternrun_train(*words, "--force")
            assert Path(name).read_bytes() != b"precious"
        Path(name).unlink()


def test_a_data_folder_takes_anothers_place_by_force_and_no_other_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("".join(f"line {i} of a text\n" for i in range(300)))
    ternrun_train("data", "notes.txt", "--out", "d")
    before = Path("d/train.bin").read_bytes()
    with pytest.raises(UsageError, match="^d already exists and is not empty; --force replaces it$"):
        ternrun_train("data", "notes.txt", "--tokenizer", "char", "--out", "d")
    assert Path("d/train.bin").read_bytes() == before
    ternrun_train("data", "notes.txt", "--tokenizer", "char", "--out", "d", "--force")
    assert Path("d/train.bin").read_bytes() != before
    Path("d/thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds other files than `ternrun train data` writes"):
        ternrun_train("data", "notes.txt", "--out", "d", "--force")
    assert Path("d/thesis.txt").read_text() == "precious"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
