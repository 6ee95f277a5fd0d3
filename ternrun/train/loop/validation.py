"""Validation: loss, bits per byte and next-token accuracy over a held-out part of the data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from ternrun.train.data.augmentation import Batch
from ternrun.train.data.windows import consecutive
from ternrun.train.loop.checkpoint import BEST
from ternrun.train.loop.run import TrainingRun
from ternrun.train.model.decoder import Decoder

_BATCH_TOKENS = 8192
_HEAD_TOKENS = 1024  # positions whose logits are computed at a time


@dataclass(frozen=True, slots=True)
class Score:
    """`loss` is in nats per token; `accuracy` is the share of positions whose most likely token is the right one."""

    loss: float
    accuracy: float
    tokens: int

    def bits_per_byte(self, bytes_per_token: float) -> float:
        """The loss per byte of text, which compares models with different vocabularies."""
        return self.loss / math.log(2) / bytes_per_token


class Validator:
    """Scores the validation part of a run's data and keeps the best checkpoint."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run

    def validate(self) -> Score:
        """Score and log. Saves the best checkpoint if the loss is the lowest so far, except in full-precision steps."""
        run, state = self._run, self._run.state
        batches = consecutive(
            run.corpus.val, run.config.model.context, batch_windows(run.config.model.context),
            run.config.run.validate_windows,
        )  # fmt: skip
        score: Score = validate(run.model, batches, run.dtype)
        score = replace(score, loss=run.context.mean(score.loss))  # one number, so that all ranks decide alike
        self._log(score)
        finite = math.isfinite(score.loss)
        state.validation = score.loss if finite else None
        full_precision = state.step > 0 and run.config.in_full_precision(state.step - 1)
        if finite and not full_precision and (state.best is None or score.loss < state.best):
            state.best = score.loss
            run.save(BEST)
        return score

    def _log(self, score: Score) -> None:
        run, step = self._run, self._run.state.step
        part = run.corpus.manifest.parts["val"]
        bits = score.bits_per_byte(part.text_bytes / part.tokens)
        run.log.write(step, val_loss=score.loss, val_bits_per_byte=bits, val_accuracy=score.accuracy)
        figures = f"validation loss {score.loss:.4f}, {bits:.4f} bits a byte, accuracy {score.accuracy:.3f}"
        run.log.say(f"step {step}: {figures}")


def batch_windows(context: int) -> int:
    """Windows of `context` tokens in one validation batch."""
    return max(1, _BATCH_TOKENS // context)


@torch.no_grad()
def validate(model: Decoder, batches: Iterable[Batch], dtype: torch.dtype) -> Score:
    """Score every position of `batches` (inputs and targets, each (n, T)) without dropout."""
    device = model.token_embd.weight.device
    total = correct = count = 0.0
    for ids, targets in batches:
        hidden = model.hidden(torch.from_numpy(ids).to(device), dtype).flatten(0, 1)
        flat_targets = torch.from_numpy(targets).to(device).flatten()
        for part, wanted in zip(hidden.split(_HEAD_TOKENS), flat_targets.split(_HEAD_TOKENS), strict=True):
            logits = (part @ model.head.to(dtype).t()).float()
            total += torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
            correct += (logits.argmax(-1) == wanted).sum().item()
            count += wanted.numel()
    return Score(total / count, correct / count, int(count))
