"""Train a model, or go on training it."""

from __future__ import annotations

import argparse
from pathlib import Path

from ternrun.errors import UsageError
from ternrun.loader.embedded import located
from ternrun.train.commands.say import say

EXAMPLES = """\
examples:
  ternrun train run shakespeare-char --out runs/shakespeare
  ternrun train run code-9m --out runs/code --set optim.steps=4000 --set optim.decay_steps=1000
  ternrun train run code-9m --out runs/code --resume --set optim.steps=6000 --set optim.decay_steps=1500
  torchrun --nproc-per-node 2 -m ternrun train run nano_125m --out runs/nano
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The flags."""
    p.add_argument("config", help="a preset's name or a TOML file")
    p.add_argument("--out", type=Path, required=True, help="folder for checkpoints and logs")
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
    p.add_argument(
        "--from", dest="begin", metavar="MODEL",
        help="begin with this model file's weights instead of random ones; blocks it lacks begin as copies of its own",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Raises ConfigError, LoadError, UsageError; TernrunError where training diverges or the disk is full."""
    from ternrun.train.config import load_config
    from ternrun.train.curve import draw
    from ternrun.train.devices import placed
    from ternrun.train.trainer import Trainer

    config = load_config(args.config, args.changes + ["run.compile=true"] * args.compile)
    if args.begin and args.resume:
        raise UsageError("--resume goes on with the weights of its checkpoint; leave out --from")
    if not args.resume and (args.out / "last.safetensors").exists():
        raise UsageError(f"{args.out} holds a run already; --resume goes on with it, another --out starts anew")
    with placed(config.run, config.data.batch) as place:
        Trainer(config, args.out, place, resume=args.resume, begin=located(args.begin) if args.begin else None).run()
        if place.first:
            draw(args.out, say)
