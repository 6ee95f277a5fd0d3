"""Building a training run: data, model, optimizers and state, new or from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ternrun.errors import ConfigError
from ternrun.train import optim
from ternrun.train.config import TrainConfig
from ternrun.train.data.corpus import Corpus, open_corpus
from ternrun.train.data.new_folder import copy_tokenizer
from ternrun.train.distributed.context import DistributedContext
from ternrun.train.distributed.sharding import full_tensors
from ternrun.train.loop import checkpoint
from ternrun.train.loop.checkpoint import BEST, LAST, Checkpoint
from ternrun.train.loop.init_from_model import init_from_model, initial_model
from ternrun.train.loop.run_log import RunLog
from ternrun.train.loop.state import TrainState
from ternrun.train.model.decoder import Decoder

_RESUME_UNCHANGED = (("data", "batch"), ("data", "fim"), ("optim", "other"), ("run", "seed"))  # and all of `model`


@dataclass(slots=True)
class TrainingRun:
    """The parts of one run. `module` is `model`, compiled and wrapped for several ranks as configured."""

    config: TrainConfig
    folder: Path
    context: DistributedContext
    corpus: Corpus
    model: Decoder
    module: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    state: TrainState
    log: RunLog

    @property
    def dtype(self) -> torch.dtype:
        """The precision of activations."""
        return torch.bfloat16 if self.config.run.precision == "bf16" else torch.float32

    def save(self, name: str) -> None:
        """Write the checkpoint `name` to the run's folder. Every rank must call this; the main rank writes."""
        tensors = {f"model.{n}": t for n, t in self.model.state_dict().items()}
        for label, optimizer in self.optimizers.items():
            tensors |= checkpoint.optimizer_tensors(label, optimizer)
        tensors = full_tensors(tensors)
        if self.context.is_main:
            saved = Checkpoint(self.config, self.corpus.manifest.tokenizer_sha256, self.state, tensors)
            checkpoint.save(self.folder / name, saved)


def build_run(
    config: TrainConfig, folder: Path, context: DistributedContext, *, resume: bool, init_from: Path | None = None
) -> TrainingRun:
    """Build the run in `folder`: new with random weights or those of the model file `init_from`, or resumed.

    Raises ConfigError if the model file or checkpoint does not match the config, LoadError if a file is damaged.
    """
    corpus = open_corpus(config)
    config = with_vocab_size(config, corpus.manifest.vocab_size)
    torch.manual_seed(config.run.seed)
    model, state = Decoder(config.model), TrainState()
    if init_from:
        init_from_model(init_from, model, corpus.tokenizer, config.run.seed)
        state.begun = initial_model(init_from)
    model.to(context.device)
    saved = checkpoint.load(folder / LAST) if resume else None
    if saved:
        check_same_run(config, saved, corpus.manifest.tokenizer_sha256)
        model.load_state_dict(saved.with_prefix("model."))
        state = saved.state
    state.record_mixture(corpus.mixed)
    module = context.wrap(model, config.run)
    optimizers = optim.build(model, config.optim)
    if saved:
        for label, optimizer in optimizers.items():
            checkpoint.restore_optimizer(optimizer, saved.with_prefix(f"{label}."))
    log = RunLog(folder if context.is_main else folder / f"rank{context.rank}", state.step)
    run = TrainingRun(config, folder, context, corpus, model, module, optimizers, state, log)
    if context.is_main:
        _prepare_folder(run, new=saved is None)
    return run


def _prepare_folder(run: TrainingRun, *, new: bool) -> None:
    """Remove leftovers, copy the tokenizer, and report what compiling will do. Called on the main rank."""
    checkpoint.remove_partial_files(run.folder)
    for name in (LAST, BEST) if new else ():
        (run.folder / name).unlink(missing_ok=True)  # of the run that this one replaces
    copy_tokenizer(Path(run.config.data.path), run.folder)
    if run.config.run.compile and not run.context.can_compile():
        run.log.say("torch finds no C++ compiler: training goes on uncompiled, which is slower")
    elif run.config.run.compile:
        run.log.say("torch compiles the model, which can take minutes; --set run.compile=false starts at once")


def with_vocab_size(config: TrainConfig, vocab_size: int) -> TrainConfig:
    """The config with the data's vocabulary size filled in. Raises ConfigError if it states a different one."""
    if config.model.vocab_size not in (0, vocab_size):
        raise ConfigError(
            f"model.vocab_size is {config.model.vocab_size}, but the data's tokenizer has {vocab_size} tokens"
        )
    return replace(config, model=replace(config.model, vocab_size=vocab_size))


def check_same_run(config: TrainConfig, saved: Checkpoint, tokenizer_sha256: str) -> None:
    """Raise ConfigError if `config` changes what a resumed run must keep.

    Learning rates, lengths and logging may change. The model, the order of the data and the kind of optimizer may not.
    """
    now, then = config.as_dict(), saved.config.as_dict()
    for table, key in [*_RESUME_UNCHANGED, *(("model", key) for key in now["model"])]:
        if now[table][key] != then[table][key]:
            values = f"{table}.{key} = {then[table][key]!r}, the config says {now[table][key]!r}"
            raise ConfigError(f"the checkpoint was made with {values}")
    if tokenizer_sha256 != saved.tokenizer_sha256:
        raise ConfigError("the checkpoint was made with another tokenizer than the data's")
