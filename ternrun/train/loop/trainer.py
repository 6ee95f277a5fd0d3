"""The training loop. It knows tokens, steps and files; it knows nothing of where the text came from."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from ternrun.errors import ConfigError, TernrunError
from ternrun.train import optim
from ternrun.train.config import TrainConfig
from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.data.corpus import note_mixture, open_corpus
from ternrun.train.data.new_folder import keep_tokenizer
from ternrun.train.data.windows import Batch, consecutive
from ternrun.train.evaluate.validation import Score, validate, windows_at_once
from ternrun.train.export.model_card import history
from ternrun.train.loop import checkpoint
from ternrun.train.loop.devices import Place, matmul_rate
from ternrun.train.loop.init_from_model import begin_from
from ternrun.train.loop.run_log import RunLog
from ternrun.train.loop.sample import generate
from ternrun.train.loop.sharding import whole, whole_state
from ternrun.train.model.bitlinear import BitLinear
from ternrun.train.model.decoder import Decoder, flops_per_token
from ternrun.train.optim import schedule

_SKIPS_IN_A_ROW = 20  # steps that may be thrown away before the run is given up
_SPIKE = 1.5  # nats above the running mean that make a step one to throw away
_SAMPLE_TOKENS = 96


class Trainer:
    """One run in one folder: `last.safetensors`, `best.safetensors`, `log.jsonl`.

    A new run begins with random weights, or with those of the model file `begin`.
    Raises ConfigError where that file, or the checkpoint to resume, is of another model, LoadError for damaged data.
    """

    def __init__(
        self, config: TrainConfig, folder: Path, place: Place, *, resume: bool, begin: Path | None = None
    ) -> None:
        self.folder, self.place = folder, place
        self.corpus = corpus = open_corpus(config)
        config = with_vocabulary(config, corpus.manifest.vocab_size)
        self.config = config
        torch.manual_seed(config.run.seed)
        self.dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
        self.model = Decoder(config.model)
        if begin:
            begin_from(begin, self.model, corpus.tokenizer, config.run.seed)
        self.model.to(place.device)
        self.state = _new_state(begin)
        saved = checkpoint.load(folder / "last.safetensors") if resume else None
        if saved:
            check_same_run(config, saved, corpus.manifest.tokenizer_sha256)
            self.model.load_state_dict(saved.under("model."))
            self.state = saved.state
        note_mixture(self.state, corpus.mixed)
        self.wrapped = place.wrap(self.model, config.run)
        self.optimizers = optim.build(self.model, config.optim)
        for label, optimizer in self.optimizers.items() if saved else ():
            checkpoint.restore_optimizer(optimizer, saved.under(f"{label}."))  # type: ignore[union-attr]
        self._linears = [m for m in self.model.modules() if isinstance(m, BitLinear) and m.ternary]
        self.rate = matmul_rate(place.device, self.dtype)
        self.log = RunLog(folder if place.first else folder / f"rank{place.rank}", self.state["step"])
        if place.first:
            self._ready_folder(new=saved is None)
        self._stop = ""
        self._skips = 0
        self._full = False  # in the phase before weights become ternary

    def _ready_folder(self, *, new: bool) -> None:
        """What one rank does for all: sweep up after a kill, keep the tokenizer, say what cannot be had."""
        checkpoint.sweep(self.folder)
        for name in ("last", "best") if new else ():
            (self.folder / f"{name}.safetensors").unlink(missing_ok=True)  # of a run whose place this one takes
        keep_tokenizer(Path(self.config.data.path), self.folder)
        if self.config.run.compile and not self.place.can_compile():
            self.log.say("torch finds no C++ compiler: training goes on uncompiled, which is slower")
        elif self.config.run.compile:
            self.log.say("torch compiles the model, which can take minutes; --set run.compile=false begins at once")

    def run(self) -> None:
        """Train until `steps` are done or a signal arrives; either way the last state is saved."""
        steps = self.config.optim.steps
        of = f"step {self.state['step'] + 1} of {steps}" if steps else f"step {self.state['step'] + 1}"
        self.log.say(f"training {sum(p.numel() for p in self.model.parameters()) / 1e6:.1f}M parameters from {of}")
        try:
            with self._signals():
                stopped = self._loop()
            self.save("last")
            step, by = self.state["step"], self._stop or "a signal to another process"
            self.log.say(
                f"stopped by {by} after step {step}; --resume goes on" if stopped else f"finished {step} steps"
            )
        finally:
            self.log.close()

    def _loop(self) -> bool:
        """Returns whether a signal, to whichever rank, ended it."""
        saved, run, stopped = time.monotonic(), self.config.run, False
        while not stopped and not self.finished:
            self.step()
            step = self.state["step"]
            if step % run.validate_every == 0 or self.finished:
                self.validate()
            if run.sample_every and step % run.sample_every == 0:
                self.show_sample()
            late = time.monotonic() - saved > 60 * run.save_minutes
            stopped, late = self.place.any(bool(self._stop), late)
            if step % run.save_every == 0 or late:
                self.save("last")
                saved = time.monotonic()
        return stopped

    @property
    def finished(self) -> bool:
        """Are all steps done?"""
        return bool(0 < self.config.optim.steps <= self.state["step"])

    def step(self) -> None:
        """One batch: gradients of all micro-batches, one update."""
        began, state, optimisation = time.monotonic(), self.state, self.config.optim
        torch.manual_seed(self._step_seed())  # dropout: of this step and rank, whatever ran before
        factor = schedule.factor(state["step"], optimisation)
        self._begin_phase()
        optim.set_rates(self.optimizers, optimisation, factor, schedule.decay_factor(state["step"], optimisation))
        loss = self._gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), optimisation.clip or math.inf)
        size = float(whole(norm))
        if self._sane(loss, size):
            for optimizer in self.optimizers.values():
                optimizer.step()
        self.model.zero_grad(set_to_none=True)
        state["step"] += 1
        state["sample"] += self.config.data.batch
        state["seconds"] += time.monotonic() - began
        if state["step"] % self.config.run.log_every == 0:
            self._report(loss, size, factor, time.monotonic() - began)

    def validate(self) -> Score:
        """Score the validation part; keep the model if it is the best so far."""
        run, context = self.config.run, self.config.model.context
        batches = consecutive(self.corpus.val, context, windows_at_once(context), run.validate_windows)
        score: Score = validate(self.model, batches, self.dtype)
        score = replace(score, loss=self.place.mean(score.loss))  # one number, so that all ranks save the best or none
        part = self.corpus.manifest.parts["val"]
        bits = score.bits_per_byte(part.text_bytes / part.tokens)
        self.log.write(self.state["step"], val_loss=score.loss, val_bits_per_byte=bits, val_accuracy=score.accuracy)
        numbers = f"validation loss {score.loss:.4f}, {bits:.4f} bits a byte, accuracy {score.accuracy:.3f}"
        self.log.say(f"step {self.state['step']}: {numbers}")
        self.state["validation"] = score.loss if math.isfinite(score.loss) else None
        if (
            math.isfinite(score.loss)
            and not self._full
            and (self.state["best"] is None or score.loss < self.state["best"])
        ):
            self.state["best"] = score.loss
            self.save("best")
        return score

    def show_sample(self) -> None:
        """Log what the model makes of the prompt."""
        tokenizer = self.corpus.tokenizer
        ids = tokenizer.encode(self.config.run.sample_prompt or "\n").ids
        ids = ids or tokenizers.beginning(tokenizer).encode("").ids  # no character of it is known
        text = tokenizer.decode(ids + generate(self.model, ids, _SAMPLE_TOKENS, self.dtype, temperature=0.4))
        self.log.write(self.state["step"], sample=text)
        self.log.say(text)

    def save(self, name: str) -> None:
        """Write a checkpoint; called on every rank, written by the first."""
        tensors = {f"model.{n}": t for n, t in self.model.state_dict().items()}
        for label, optimizer in self.optimizers.items():
            tensors |= checkpoint.optimizer_tensors(label, optimizer)
        tensors = whole_state(tensors)
        if self.place.first:
            saved = checkpoint.Checkpoint(self.config, self.corpus.manifest.tokenizer_sha256, self.state, tensors)
            checkpoint.save(self.folder / f"{name}.safetensors", saved)

    def _begin_phase(self) -> None:
        """Weights are what they are in the first `full_steps`, and ternary from then on."""
        step = self.state["step"]
        self._full = self.config.in_full(step)
        for linear in self._linears:
            linear.ternary = not self._full
        if step == self.config.optim.full_steps:
            self.state["mean_loss"] = None  # the loss jumps where rounding begins

    def _step_seed(self) -> int:
        number = self.state["step"] * self.place.world + self.place.rank
        return int(np.random.SeedSequence((self.config.run.seed, number)).generate_state(1, np.uint64)[0] >> 1)

    def _gradients(self) -> float:
        """Accumulate the gradients of this rank's share of the batch; returns the mean loss over all ranks.

        Each micro-batch counts by the targets that it learns from, so that however the batch is cut and shared out, its
        gradient is that of the whole.
        """
        terms, batches = self.config.optim, self._micro_batches()
        learned = [int((targets >= 0).sum()) for _, targets in batches]
        everything = self.place.mean(sum(learned)) or 1.0  # gradients, too, are averaged over the ranks
        total = torch.zeros((), device=self.place.device)
        for number, (batch, weight) in enumerate(zip(batches, learned, strict=True), 1):
            ids, targets = (torch.from_numpy(a).to(self.place.device) for a in batch)
            with self.place.accumulating(self.wrapped, last=number == len(batches)):
                objective, loss = self.wrapped(ids, targets, self.dtype, terms.dropout, terms.z_loss, terms.entropy)
                (objective * (weight / everything)).backward()
            total += loss * (weight / everything)
        return self.place.mean(total.item())

    def _micro_batches(self) -> list[Batch]:
        """This rank's share of the step's windows, so many at a time as go through the model at once."""
        share = self.config.data.batch // self.place.world
        size = self.config.data.micro_batch or share
        first = self.state["sample"] + self.place.rank * share
        return [self.corpus.train.batch(first + start, min(size, share - start)) for start in range(0, share, size)]

    def _sane(self, loss: float, norm: float) -> bool:
        """Is this step safe to apply? Raises TernrunError where too many in a row were not."""
        mean = self.state["mean_loss"]
        good = math.isfinite(loss) and math.isfinite(norm) and (mean is None or loss < mean + _SPIKE)
        self._skips = 0 if good else self._skips + 1
        if good:
            self.state["mean_loss"] = loss if mean is None else 0.98 * mean + 0.02 * loss
            return True
        self.state["skipped"] += 1
        if self._skips >= _SKIPS_IN_A_ROW:
            raise TernrunError(
                f"training diverged at step {self.state['step'] + 1}: {self._skips} steps in a row had a spike or a "
                f"number that is not finite; lower optim.matrix_lr (checkpoints in {self.folder} are kept)"
            )
        return False

    def _report(self, loss: float, norm: float, factor: float, seconds: float) -> None:
        step, config = self.state["step"], self.config
        speed = config.data.batch * config.model.context / seconds
        bits = loss / math.log(2) / self.corpus.bytes_per_token
        use = speed * flops_per_token(config.model) / self.place.world / self.rate
        steps = config.optim.steps
        left = f"{(steps - step) * seconds / 60:.0f} min left, " if steps else ""
        self.log.write(step, loss=loss, grad_norm=norm, lr=factor, tokens_per_second=round(speed), mfu=round(use, 3))
        numbers = f"loss {loss:.4f}, {left}{bits:.3f} bits a byte, {speed:,.0f} tokens/s, {use:.0%} of matmul rate"
        self.log.progress(f"step {step}: {numbers}", step / steps if steps else None)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the run after the step in progress."""

        def stop(number: int, _: FrameType | None) -> None:
            self._stop = signal.Signals(number).name

        previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _new_state(begin: Path | None) -> dict[str, Any]:
    """Of a run that has made no step; it goes into checkpoints as JSON."""
    return {
        "step": 0,
        "sample": 0,
        "mean_loss": None,
        "best": None,
        "validation": None,
        "seconds": 0.0,
        "skipped": 0,
        "begun": history(begin) if begin else None,
    }


def with_vocabulary(config: TrainConfig, vocab_size: int) -> TrainConfig:
    """The config with the data's vocabulary filled in. Raises ConfigError where it names another."""
    if config.model.vocab_size not in (0, vocab_size):
        raise ConfigError(
            f"model.vocab_size is {config.model.vocab_size}, but the data's tokenizer has {vocab_size} tokens"
        )
    return replace(config, model=replace(config.model, vocab_size=vocab_size))


def check_same_run(config: TrainConfig, saved: checkpoint.Checkpoint, tokenizer: str) -> None:
    """Resuming may change rates, lengths and logging, not the model, the order of the data or what an optimizer keeps.

    Raises ConfigError.
    """
    now, then = config.as_dict(), saved.config.as_dict()
    fixed = [("data", "batch"), ("data", "fim"), ("optim", "other"), ("run", "seed")]
    fixed += [("model", key) for key in now["model"]]
    for table, key in fixed:
        if now[table][key] != then[table][key]:
            was, asked = then[table][key], now[table][key]
            raise ConfigError(f"the checkpoint was made with {table}.{key} = {was!r}, the config says {asked!r}")
    if tokenizer != saved.tokenizer_sha256:
        raise ConfigError("the checkpoint was made with another tokenizer than the data's")
