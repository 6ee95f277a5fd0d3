"""The weights of two checkpoints of one model, averaged.

After some steps more with a falling rate the average can be better than both (kin to model soups, arXiv 2203.05482,
which need no such steps: ternary weights do, since many of them lie between two values then).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ternrun.errors import ConfigError, UsageError
from ternrun.train.loop import checkpoint
from ternrun.train.loop.checkpoint import Checkpoint


def average(first: Path, second: Path, share: float) -> Checkpoint:
    """`share` of the second's weights and the rest of the first's; all else is the second's, so that it can go on.

    Raises LoadError for what is no checkpoint, ConfigError where they are of different models, UsageError for a share
    outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"a share lies between 0 and 1, not at {share}")
    a, b = checkpoint.load(first), checkpoint.load(second)
    if a.config.model != b.config.model or a.tokenizer_sha256 != b.tokenizer_sha256:
        raise ConfigError(f"{first} and {second} are not of the same model and tokenizer")
    weights = a.under("model.")
    mixed = {f"model.{name}": torch.lerp(weights[name], w, share) for name, w in b.under("model.").items()}
    state = b.state | {
        "best": None,
        "validation": None,
        "averaged": [*b.state.get("averaged", []), {"steps": [a.state["step"], b.state["step"]], "share": share}],
    }
    return replace(b, tensors=b.tensors | mixed, state=state)
