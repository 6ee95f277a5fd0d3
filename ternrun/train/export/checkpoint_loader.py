"""From a checkpoint file back to a model with its tokenizer, for export and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from ternrun.errors import ConfigError, LoadError
from ternrun.train.data.new_folder import KEPT
from ternrun.train.data.token_file import Manifest, open_tokens, read_manifest, tokenizer_of
from ternrun.train.data.tokenizer import beginning
from ternrun.train.data.windows import consecutive
from ternrun.train.evaluate.validation import validate, windows_at_once
from ternrun.train.export.gguf import dense_type, round_dense
from ternrun.train.export.parity import agreement
from ternrun.train.loop import checkpoint
from ternrun.train.model.decoder import Decoder


@dataclass(frozen=True, slots=True)
class Restored:
    """A model as it was saved, and the data folder whose tokenizer it speaks.

    Where it learned from more than one text, the tokenizer begins a prompt as they began.
    """

    model: Decoder
    tokenizer: Tokenizer
    manifest: Manifest
    data: Path
    step: int


def restored(path: Path, data: Path | None = None) -> Restored:
    """The tokenizer is that of the folder `data`, or of the one trained on, or the run's own copy of that.

    Raises LoadError for a damaged checkpoint, ConfigError where the folder's tokenizer is not the model's, or its
    weights have not begun to be ternary.
    """
    saved = checkpoint.load(path)
    step, full = int(saved.state["step"]), saved.config.optim.full_steps
    if saved.config.in_full(step):
        raise ConfigError(f"{path} is at step {step}; its weights learn to be ternary from step {full} on (full_steps)")
    folder, kept = data or Path(saved.config.data.path), path.parent / KEPT
    try:
        manifest, tokenizer = _vocabulary(folder, path, saved.tokenizer_sha256)
    except (ConfigError, LoadError):
        if data or not kept.is_dir():
            raise
        folder = kept
        manifest, tokenizer = _vocabulary(folder, path, saved.tokenizer_sha256)
    model = Decoder(saved.config.model)
    model.load_state_dict(saved.under("model."))
    if manifest.parts["train"].documents > 1:
        tokenizer = beginning(tokenizer)
    return Restored(model, tokenizer, manifest, folder, step)


def _vocabulary(folder: Path, path: Path, sha256: str) -> tuple[Manifest, Tokenizer]:
    manifest = read_manifest(folder)
    if manifest.tokenizer_sha256 != sha256:
        raise ConfigError(f"{path} was trained with another tokenizer than the one in {folder}")
    return manifest, tokenizer_of(folder, manifest)


def score(path: Path, data: Path | None, part: str, windows: int = 0) -> dict[str, float]:
    """What `ternrun train eval` prints about one part of the data, computed in f32."""
    found = restored(path, data)
    context = found.model.shape.context
    tokens = open_tokens(found.data, part, found.manifest)
    result = validate(found.model, consecutive(tokens, context, windows_at_once(context), windows), torch.float32)
    size = found.manifest.parts[part]
    return {
        "step": found.step,
        "tokens": result.tokens,
        "loss": result.loss,
        "bits_per_byte": result.bits_per_byte(size.text_bytes / size.tokens),
        "accuracy": result.accuracy,
    }


def compare(path: Path, data: Path | None, exported: Path, positions: int) -> dict[str, float]:
    """How far the runtime, reading `exported`, is from the checkpoint it was made from, in ranges of the logits."""
    found = restored(path, data)
    tokens = open_tokens(found.data, "val", found.manifest)
    result = agreement(round_dense(found.model, dense_type(exported)), exported, tokens, positions)
    return {
        "positions": result.positions,
        "same_argmax": result.same,
        "apart_median": result.median,
        "apart_at_most": result.largest,
    }
