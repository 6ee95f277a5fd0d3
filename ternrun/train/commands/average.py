"""Average the weights of two checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

from ternrun.files import add_force, check_new
from ternrun.train.commands.checkpoint_file import LAST, checkpoint_file
from ternrun.train.commands.common import say

EXAMPLES = """\
examples:
  ternrun train average runs/a/last.safetensors runs/b/last.safetensors --share 0.5 --out runs/c/last.safetensors
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    p.add_argument("first", type=Path, help="a checkpoint, or the folder of a run (its last.safetensors)")
    p.add_argument("second", type=Path, help="another checkpoint of the same model, whose optimizer and step are kept")
    p.add_argument("--share", type=float, default=0.5, help="weight of the second checkpoint (default %(default)s)")
    p.add_argument("--out", type=Path, required=True, help="checkpoint to write; `run --resume` continues from it")
    add_force(p)


def run(args: argparse.Namespace) -> None:
    """Raises ConfigError, LoadError, UsageError."""
    from ternrun.train.data.new_folder import TOKENIZER_FOLDER, copy_tokenizer
    from ternrun.train.loop import checkpoint
    from ternrun.train.loop.average import average

    if args.out.parent.is_dir():
        check_new(args.out, force=args.force)
    first, second = (checkpoint_file(path, first=LAST) for path in (args.first, args.second))
    checkpoint.save(args.out, average(first, second, args.share))
    if (tokenizer := second.parent / TOKENIZER_FOLDER).is_dir():
        copy_tokenizer(tokenizer, args.out.parent)
    say(f"{args.out} written")
