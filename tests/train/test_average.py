"""Two checkpoints averaged: their weights, and nothing else of the first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ternrun.errors import ConfigError, UsageError
from ternrun.train.config import TrainConfig
from ternrun.train.loop import checkpoint
from ternrun.train.loop.average import average
from ternrun.train.loop.checkpoint import Checkpoint
from ternrun.train.loop.state import TrainState


def saved(path: Path, step: int, value: float, **model: int) -> Path:
    shape = {"vocab_size": 320, "dim": 64, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "ffn_dim": 64}
    config = TrainConfig.from_dict({"model": shape | model})
    tensors = {"model.w": torch.full((4, 3), value), "matrix.0.momentum": torch.full((4, 3), 10 * value)}
    checkpoint.save(path, Checkpoint(config, "abc", TrainState(step=step, sample=12 * step, best=3.0), tensors))
    return path


def test_weights_are_averaged_and_all_else_is_the_second_s(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a.safetensors", 5, 1.0), saved(tmp_path / "b.safetensors", 9, 2.0)
    mixed = average(a, b, 0.75)
    assert torch.equal(mixed.tensors["model.w"], torch.full((4, 3), 1.75))
    assert torch.equal(mixed.tensors["matrix.0.momentum"], torch.full((4, 3), 20.0))
    assert mixed.state == TrainState(step=9, sample=108, averaged=[{"steps": [5, 9], "share": 0.75}])


def test_every_averaging_on_the_way_is_remembered(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a.safetensors", 5, 1.0), saved(tmp_path / "b.safetensors", 9, 2.0)
    checkpoint.save(b, average(a, b, 0.75))
    assert average(a, b, 0.5).state.averaged == [{"steps": [5, 9], "share": 0.75}, {"steps": [5, 9], "share": 0.5}]


def test_refuses_what_cannot_be_averaged(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a.safetensors", 5, 1.0), saved(tmp_path / "b.safetensors", 9, 2.0)
    with pytest.raises(UsageError, match="between 0 and 1"):
        average(a, b, 1.5)
    with pytest.raises(ConfigError, match="not of the same model"):
        average(a, saved(tmp_path / "c.safetensors", 9, 2.0, dim=128), 0.5)
    other = checkpoint.load(b)
    checkpoint.save(tmp_path / "d.safetensors", replace(other, tokenizer_sha256="xyz"))
    with pytest.raises(ConfigError, match="not of the same model and tokenizer"):
        average(a, tmp_path / "d.safetensors", 0.5)
