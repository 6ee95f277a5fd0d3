"""Average the weights of two checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

from ternrun.files import add_force, check_new
from ternrun.train.commands.checkpoint_file import LAST, checkpoint_file
from ternrun.train.commands.progress_line import say

EXAMPLES = """\
examples:
  ternrun train average runs/a/last.safetensors runs/b/last.safetensors --share 0.5 --out runs/c/last.safetensors
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The flags."""
    p.add_argument("first", type=Path, help="a checkpoint, or a run's folder: its last.safetensors")
    p.add_argument("second", type=Path, help="another of the same model, with whose optimizer and step it goes on")
    p.add_argument("--share", type=float, default=0.5, help="of the second's weights (default %(default)s)")
    p.add_argument("--out", type=Path, required=True, help="the checkpoint to write, for `run --resume` in its folder")
    add_force(p)


def run(args: argparse.Namespace) -> None:
    """Raises ConfigError, LoadError, UsageError."""
    from ternrun.train.data.new_folder import KEPT, keep_tokenizer
    from ternrun.train.loop import checkpoint
    from ternrun.train.loop.average import average

    if args.out.parent.is_dir():
        check_new(args.out, force=args.force)
    first, second = (checkpoint_file(path, first=LAST) for path in (args.first, args.second))
    checkpoint.save(args.out, average(first, second, args.share))
    if (kept := second.parent / KEPT).is_dir():
        keep_tokenizer(kept, args.out.parent)
    say(f"{args.out} written")
