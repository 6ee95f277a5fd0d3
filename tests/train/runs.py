"""Building and training runs in this process."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ternrun.train import cli
from ternrun.train.config import TrainConfig
from ternrun.train.distributed.context import DistributedContext
from ternrun.train.loop.run import build_run
from ternrun.train.loop.run_log import RunLog
from ternrun.train.loop.trainer import Trainer

TINY = [
    "model.dim=256", "model.n_layers=1", "model.ffn_dim=256", "model.context=32", "data.batch=2", "optim.steps=3",
    "optim.decay_steps=1", "run.validate_every=2", "run.validate_windows=2", "run.sample_every=3", "run.compile=false",
    "run.threads=1",
]  # fmt: skip
CPU = DistributedContext(torch.device("cpu"))


def new_trainer(config: TrainConfig, folder: Path, *, resume: bool = False, init_from: Path | None = None) -> Trainer:
    """A trainer that has made no step yet. Its log must be closed."""
    return Trainer(build_run(config, folder, CPU, resume=resume, init_from=init_from))


def train(config: TrainConfig, folder: Path, *, resume: bool = False, init_from: Path | None = None) -> Trainer:
    """A trainer that has finished its run."""
    trainer = new_trainer(config, folder, resume=resume, init_from=init_from)
    trainer.train()
    return trainer


def losses(folder: Path) -> list[tuple[int, float]]:
    """Step and training loss of each entry of a run's log."""
    return [(e["step"], e["loss"]) for e in RunLog.entries(folder / "log.jsonl") if "loss" in e]


def ternrun_train(*words: object) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    return cli.run(args)


def settings(data: Path) -> list[str]:
    return [part for change in (*TINY, f"data.path={data}") for part in ("--set", change)]
