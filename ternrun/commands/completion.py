"""Write a script that completes commands, flags and model files in a shell.

The script asks ternrun itself, so it stays right when ternrun is upgraded.
"""

from __future__ import annotations

import argparse
import os
import sys

from ternrun.commands.line.parser import Parser
from ternrun.commands.names import COMMANDS, SAME, command_parser
from ternrun.loader.default_model import NAME
from ternrun.loader.hub.reference import MODELS

EXAMPLES = """\
examples:
  ternrun completion bash >> ~/.bashrc
  ternrun completion zsh >> ~/.zshrc
  ternrun completion fish > ~/.config/fish/completions/ternrun.fish
"""
SHELLS = ("bash", "zsh", "fish")
MODEL = ("model", "word", "words")  # where arguments go that may name a model


def add_arguments(parser: Parser) -> None:
    """Add this command's arguments."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["ternrun"], shell=args.shell).strip())
    return 0


def answer() -> None:
    """Answer the script of a shell, which sets _ARGCOMPLETE, with completions; ends the process."""
    from argcomplete import autocomplete
    from argcomplete.completers import FilesCompleter

    Parser.translates = False
    words = os.environ.get("COMP_LINE", "").split()
    typed = SAME.get(words[1], words[1]) if len(words) > 1 else ""
    top = argparse.ArgumentParser(prog="ternrun")
    top.add_argument("--version", action="store_true")
    commands = top.add_subparsers(parser_class=argparse.ArgumentParser)
    commands.add_parser("version")
    commands.add_parser("help").add_argument("command", choices=list(COMMANDS))
    models = FilesCompleter(allowednames=MODELS)
    for name in COMMANDS:
        if name != typed:
            commands.add_parser(name)
            continue
        parser = commands.add_parser(words[1], parents=[command_parser(name)], add_help=False)
        for action in parser._actions:
            if action.dest in MODEL:
                action.completer = lambda prefix, **_: [*models(prefix), NAME]  # type: ignore[attr-defined]
    autocomplete(top, always_complete_options=False)
    sys.exit(1)  # the shell asked for something that is no command line of ours
