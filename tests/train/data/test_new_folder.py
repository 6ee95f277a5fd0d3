"""A data folder is there whole or not at all, and a checkpoint outlives the one it was made from."""

from __future__ import annotations

import errno
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ternrun.errors import ConfigError, LoadError, TernrunError, UsageError
from ternrun.train.commands import average
from ternrun.train.config import TrainConfig
from ternrun.train.data import prepare as preparing
from ternrun.train.data.document import Document
from ternrun.train.data.options import PrepareOptions
from ternrun.train.data.prepare import prepare
from ternrun.train.export.checkpoint_loader import load_trained
from tests.train.runs import train

PLAN = PrepareOptions(tokenizer="char", split="tail", val_share=0.1)


def build(folder: Path, text: str = "some text\n" * 40) -> None:
    prepare([Document("t", "t", "x", text)], folder, PLAN, lambda _: None)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_folder_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    build(tmp_path / "d")
    before = contents(tmp_path / "d")
    with pytest.raises(UsageError, match="already exists and is not empty; --force"):
        build(tmp_path / "d", "another text\n" * 40)
    assert contents(tmp_path / "d") == before
    with pytest.raises(UsageError, match=r"train.bin is a file"):
        build(tmp_path / "d" / "train.bin")
    (tmp_path / "empty").mkdir()
    build(tmp_path / "empty")
    assert contents(tmp_path / "empty") == before


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(preparing, "write_tokens", full)
    with pytest.raises(TernrunError, match=r"could not write .*d: No space left on device; nothing was written"):
        build(tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_outlive_their_data(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    build(tmp_path / "d")
    settings = config(data__path=str(tmp_path / "d"), optim__steps=1, optim__decay_steps=0, model__context=16)
    for name in ("a", "b"):
        train(settings, tmp_path / name)
    saved = tmp_path / "a" / "last.safetensors"
    wanted = load_trained(saved).tokenizer.to_str()
    shutil.rmtree(tmp_path / "d")
    assert load_trained(saved).tokenizer.to_str() == wanted
    build(tmp_path / "d", "ANOTHER TEXT\n" * 40)
    assert load_trained(saved).tokenizer.to_str() == wanted
    with pytest.raises(ConfigError, match="another tokenizer"):
        load_trained(saved, tmp_path / "d")  # a folder that is named is meant
    with pytest.raises(ConfigError):
        train(settings, tmp_path / "a", resume=True)  # must not delete the copy
    assert load_trained(saved).tokenizer.to_str() == wanted
    mixed = tmp_path / "c" / "last.safetensors"
    average.run(Namespace(first=saved, second=tmp_path / "b" / "last.safetensors", share=0.5, out=mixed))
    assert load_trained(mixed).tokenizer.to_str() == wanted
    shutil.rmtree(tmp_path / "a" / "tokenizer")
    shutil.rmtree(tmp_path / "d")
    with pytest.raises(LoadError, match="not a folder made by"):
        load_trained(saved)
