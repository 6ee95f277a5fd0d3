"""Train ternary models: text to tokens, tokens to a checkpoint, a checkpoint to a GGUF that `ternrun complete` runs."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from ternrun.errors import MissingExtra
from ternrun.train.commands import average, card, data, eval, export, tokenizer
from ternrun.train.commands import run as run_

EXAMPLES = """\
examples:
  ternrun train data shakespeare --tokenizer char --split tail --val-share 0.1 --out data/shakespeare
  ternrun train run shakespeare-char --out runs/shakespeare
  ternrun train export runs/shakespeare/best.safetensors shakespeare.gguf
  ternrun train eval runs/shakespeare/best.safetensors

`ternrun train COMMAND --help` explains a command and its flags.
"""
_COMMANDS = {
    "data": data,
    "tokenizer": tokenizer,
    "run": run_,
    "export": export,
    "eval": eval,
    "average": average,
    "card": card,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands of `ternrun train`."""
    commands = parser.add_subparsers(dest="train_command", required=True, metavar="COMMAND")
    for name, module in _COMMANDS.items():
        summary = (module.__doc__ or "").rstrip(".")
        command = commands.add_parser(
            name,
            help=summary[0].lower() + summary[1:],
            description=module.__doc__,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(train_body=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the command that was chosen. Raises TernrunError."""
    for package in ("torch", "safetensors"):
        if find_spec(package) is None:
            raise MissingExtra("ternrun train", "train")
    args.train_body(args)
    return 0
