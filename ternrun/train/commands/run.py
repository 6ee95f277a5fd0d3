"""Train a model, or go on training it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ternrun.errors import UsageError
from ternrun.files import add_force
from ternrun.loader.default_model import located
from ternrun.train.commands.checkpoint_file import BEST, LAST, is_run
from ternrun.train.commands.hints import SETTINGS
from ternrun.train.commands.progress_line import say

EXAMPLES = """\
examples:
  ternrun train run shakespeare-char --out runs/shakespeare
  ternrun train run shakespeare-char --data data/notes --out runs/notes --set optim.steps=500
  ternrun train run code-9m --out runs/code --set optim.steps=4000 --set optim.decay_steps=1000
  ternrun train run code-9m --out runs/code --resume --set optim.steps=6000 --set optim.decay_steps=1500
  torchrun --nproc-per-node 2 -m ternrun train run nano_125m --out runs/nano
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The flags."""
    p.add_argument("config", help="a preset's name or a TOML file")
    p.add_argument("--out", type=Path, required=True, help="folder for checkpoints and logs")
    p.add_argument("--data", metavar="FOLDER", help="what `ternrun train data` made (default: the config's)")
    p.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        help="change a setting; may be repeated",
    )
    p.add_argument("--compile", action="store_true", help="the same as --set run.compile=true")
    p.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    add_force(p, "a run that is in --out already: it is deleted once the new one begins")
    p.add_argument(
        "--from", dest="begin", metavar="MODEL",
        help="begin with this model file's weights instead of random ones; blocks it lacks begin as copies of its own",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Raises ConfigError, LoadError, UsageError; TernrunError where training diverges or the disk is full."""
    from ternrun.train.config import load_config
    from ternrun.train.loop.devices import placed
    from ternrun.train.loop.loss_curve import draw
    from ternrun.train.loop.trainer import Trainer

    _check_words(args)
    config = load_config(args.config, _changes(args))
    _check_data(args.config, Path(config.data.path))
    if not config.optim.steps:
        say("training goes on until Ctrl-C, which saves; --set optim.steps=N ends it after N steps")
    with placed(config.run, config.data.batch) as place:
        Trainer(config, args.out, place, resume=args.resume, begin=located(args.begin) if args.begin else None).run()
        if place.first:
            draw(args.out, say)


def _check_words(args: argparse.Namespace) -> None:
    """Raises UsageError for what does not go together, for a run that would be written over, and for a bare key."""
    if args.begin and args.resume:
        raise UsageError("--resume goes on with the weights of its checkpoint; leave out --from")
    if args.force and args.resume:
        raise UsageError("--resume goes on with the run in --out, --force deletes it; leave one of them out")
    there = any((args.out / name).exists() for name in (BEST, LAST))
    if there and not (args.resume or args.force):
        raise UsageError(f"{args.out} holds a run already; --resume goes on with it, --force starts anew in its place")
    if args.resume and not (args.out / LAST).exists():
        raise UsageError(f"{args.out} holds no {LAST} to go on from; leave out --resume to start a run")
    for change in args.changes:
        name, equals, value = change.partition("=")
        known = SETTINGS.get(name.strip().replace("_", "-"))
        if equals and known:
            raise UsageError(f"--set takes TABLE.KEY=VALUE, here --set {known}={value}")


def _changes(args: argparse.Namespace) -> list[str]:
    """All settings that the flags change."""
    changes = [*args.changes, *["run.compile=true"] * args.compile]
    return changes + [f"data.path={json.dumps(args.data)}"] * (args.data is not None)


def _check_data(config: str, folder: Path) -> None:
    """Raises UsageError where there is no data folder, with the command that makes it."""
    from ternrun.train.config import data_command

    if folder.name and not folder.exists():
        made = data_command(config, folder)
        raise UsageError(f"there is no data folder {folder}; make it: {made}; or name another: --data FOLDER")
    if not folder.name or is_run(folder):
        raise UsageError("name what to learn: --data FOLDER, made by `ternrun train data SOURCE --out FOLDER`")
