"""Averaging the weights of two checkpoints of one model.

After a few more steps with a decaying learning rate, the average can be better than both checkpoints. Model soups
(arXiv 2203.05482) do not need those steps; ternary weights do, because many averages lie between two values.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ternrun.errors import ConfigError, UsageError
from ternrun.train.loop import checkpoint
from ternrun.train.loop.checkpoint import Checkpoint


def average(first: Path, second: Path, share: float) -> Checkpoint:
    """The second checkpoint with weights `(1 - share) * first + share * second`; a run can resume from it.

    Raises LoadError if a file is not a checkpoint, ConfigError if the models differ, UsageError if `share` is not
    between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"a share lies between 0 and 1, not at {share}")
    a, b = checkpoint.load(first), checkpoint.load(second)
    if a.config.model != b.config.model or a.tokenizer_sha256 != b.tokenizer_sha256:
        raise ConfigError(f"{first} and {second} are not of the same model and tokenizer")
    weights = a.with_prefix("model.")
    mixed = {f"model.{name}": torch.lerp(weights[name], w, share) for name, w in b.with_prefix("model.").items()}
    averaged = [*b.state.averaged, {"steps": [a.state.step, b.state.step], "share": share}]
    state = replace(b.state, best=None, validation=None, averaged=averaged)
    return replace(b, tensors=b.tensors | mixed, state=state)
