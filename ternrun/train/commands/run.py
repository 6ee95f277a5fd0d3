"""Train a model, or resume a run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ternrun.errors import UsageError
from ternrun.files import add_force
from ternrun.loader.default_model import located
from ternrun.train.commands.checkpoint_file import BEST, LAST, is_run
from ternrun.train.commands.common import say
from ternrun.train.commands.hints import SETTINGS

EXAMPLES = """\
examples:
  ternrun train run shakespeare-char --out runs/shakespeare
  ternrun train run shakespeare-char --data data/notes --out runs/notes --set optim.steps=500
  ternrun train run code-9m --out runs/code --set optim.steps=4000 --set optim.decay_steps=1000
  ternrun train run code-9m --out runs/code --resume --set optim.steps=6000 --set optim.decay_steps=1500
  torchrun --nproc-per-node 2 -m ternrun train run nano_125m --out runs/nano
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    p.add_argument("config", help="name of a preset, or a TOML file")
    p.add_argument("--out", type=Path, required=True, help="folder for checkpoints and logs")
    p.add_argument("--data", metavar="FOLDER", help="folder made by `ternrun train data` (default: the config's)")
    p.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="TABLE.KEY=VALUE",
        help="change a setting; may be repeated",
    )  # fmt: skip
    p.add_argument("--compile", action="store_true", help="the same as --set run.compile=true")
    p.add_argument("--resume", action="store_true", help="continue from the last checkpoint in --out")
    add_force(p, "a run in --out; its checkpoints are deleted when the new run starts")
    p.add_argument(
        "--from", dest="init_from", metavar="MODEL",
        help="start with the weights of a model file instead of random ones; missing blocks start as copies",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Raises ConfigError, LoadError, UsageError; TernrunError if training diverges or the disk is full."""
    from ternrun.train.config_file import load_config
    from ternrun.train.distributed.context import init_distributed
    from ternrun.train.loop.loss_curve import draw
    from ternrun.train.loop.run import build_run
    from ternrun.train.loop.trainer import Trainer

    _check_arguments(args)
    config = load_config(args.config, _changes(args))
    _check_data(args.config, Path(config.data.path))
    if not config.optim.steps:
        say("training continues until Ctrl-C, which saves; --set optim.steps=N stops it after N steps")
    init_from = located(args.init_from) if args.init_from else None
    with init_distributed(config.run, config.data.batch) as context:
        Trainer(build_run(config, args.out, context, resume=args.resume, init_from=init_from)).train()
        if context.is_main:
            draw(args.out, say)


def _check_arguments(args: argparse.Namespace) -> None:
    """Raise UsageError for flags that contradict each other, an existing run, and --set without a table."""
    if args.init_from and args.resume:
        raise UsageError("--resume uses the weights of its checkpoint; leave out --from")
    if args.force and args.resume:
        raise UsageError("--resume continues the run in --out, --force deletes it; leave one of them out")
    exists = any((args.out / name).exists() for name in (BEST, LAST))
    if exists and not (args.resume or args.force):
        raise UsageError(f"{args.out} already holds a run; --resume continues it, --force replaces it")
    if args.resume and not (args.out / LAST).exists():
        raise UsageError(f"{args.out} holds no {LAST} to resume from; leave out --resume to start a run")
    for change in args.changes:
        name, equals, value = change.partition("=")
        setting = SETTINGS.get(name.strip().replace("_", "-"))
        if equals and setting:
            raise UsageError(f"--set takes TABLE.KEY=VALUE, here --set {setting}={value}")


def _changes(args: argparse.Namespace) -> list[str]:
    """All settings that the flags change."""
    changes = [*args.changes, *["run.compile=true"] * args.compile]
    return changes + [f"data.path={json.dumps(args.data)}"] * (args.data is not None)


def _check_data(config: str, folder: Path) -> None:
    """Raise UsageError if there is no data folder, with the command that makes it."""
    from ternrun.train.config_file import data_command

    if folder.name and not folder.exists():
        command = data_command(config, folder)
        raise UsageError(f"there is no data folder {folder}; make it: {command}; or name another: --data FOLDER")
    if not folder.name or is_run(folder):
        raise UsageError("name the training data: --data FOLDER, made by `ternrun train data SOURCE --out FOLDER`")
