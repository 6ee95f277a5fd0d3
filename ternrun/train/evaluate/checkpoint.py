"""Evaluating a checkpoint: its loss on one part of the data, and its difference from the exported file."""

from __future__ import annotations

from pathlib import Path

import torch

from ternrun.train.data.token_file import open_tokens
from ternrun.train.data.windows import consecutive
from ternrun.train.evaluate.parity import check_parity
from ternrun.train.export.checkpoint_loader import load_trained
from ternrun.train.export.gguf import dense_type, round_dense
from ternrun.train.loop.validation import batch_windows, validate


def score(path: Path, data: Path | None, part: str, windows: int = 0) -> dict[str, float]:
    """The results of `ternrun train eval` for one part of the data, in f32; `windows` 0 scores the whole part.

    Raises as `load_trained`.
    """
    trained = load_trained(path, data)
    context = trained.model.config.context
    tokens = open_tokens(trained.data, part, trained.manifest)
    result = validate(trained.model, consecutive(tokens, context, batch_windows(context), windows), torch.float32)
    size = trained.manifest.parts[part]
    return {
        "step": trained.step,
        "tokens": result.tokens,
        "loss": result.loss,
        "bits_per_byte": result.bits_per_byte(size.text_bytes / size.tokens),
        "accuracy": result.accuracy,
    }


def compare(path: Path, data: Path | None, exported: Path, positions: int) -> dict[str, float]:
    """Differences between the logits of the checkpoint and of the file `exported`, as shares of the logits' range."""
    trained = load_trained(path, data)
    tokens = open_tokens(trained.data, "val", trained.manifest)
    result = check_parity(round_dense(trained.model, dense_type(exported)), exported, tokens, positions)
    return {
        "positions": result.positions,
        "same_argmax": result.same_argmax,
        "apart_median": result.median,
        "apart_at_most": result.largest,
    }
