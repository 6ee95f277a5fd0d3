"""Train ternary models: text to tokens, tokens to a checkpoint, a checkpoint to a GGUF that `ternrun complete` runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from ternrun.errors import MissingExtra
from ternrun.train.commands import average, card, data, eval, export, tokenizer
from ternrun.train.commands import run as run_
from ternrun.train.commands.hints import hint

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


class _Command(argparse.ArgumentParser):
    """One command's parser: its words may stand among its flags, and it complains itself, so that its name is told."""

    translates = False  # flags of programs that run models mean other things to a trainer: `hint` knows them
    _inner = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it, but nothing may be left over."""
        if self._inner:
            return super().parse_known_args(args, namespace)
        if wrong := self._unknown(args):  # before argparse misses what is required
            self.refuse(wrong)
        self._inner = True  # argparse comes back here, once for the flags and once for the words
        try:
            found, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inner = False
        if unknown:
            self.refuse(unknown)
        return found, []

    def _unknown(self, args: Sequence[str]) -> list[str]:
        """The flags that this command does not have, and the words behind them that may be their values."""
        found: list[str] = []
        for at, word in enumerate(args):
            name = word.partition("=")[0]
            if len(name) > 2 and name.startswith("--") and name not in self._option_string_actions:
                found += [word, *(value for value in args[at + 1 : at + 2] if not value.startswith("-"))]
        return found

    def refuse(self, unknown: Sequence[str]) -> None:
        """Complain of words that are no flags of this command, with what they may have meant."""
        told = hint(unknown, self._option_string_actions, settings=self.get_default("train_body") is run_.run)
        self.error(f"unrecognized arguments: {' '.join(unknown)}{told}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands of `ternrun train`."""
    kind: Any = type("Command", (_Command, type(parser)), {})  # complains as the parser does that it belongs to
    commands = parser.add_subparsers(dest="train_command", required=True, metavar="COMMAND", parser_class=kind)
    for name, module in _COMMANDS.items():
        summary = (module.__doc__ or "").rstrip(".")
        command = commands.add_parser(
            name,
            help=summary[0].lower() + summary[1:],
            description=module.__doc__,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
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
