"""Answer a prompt, or chat where there is none, as `ollama run` does.

With a prompt, in the call or in a pipe, it is `ternrun complete`: through the model's chat template where the model has
one. Without one, on a terminal, it is `ternrun chat`.
"""

from __future__ import annotations

import argparse
import sys

from ternrun.commands import complete
from ternrun.commands.line.parser import Parser
from ternrun.commands.models import model_path

EXAMPLES = """\
examples:
  ternrun run model.gguf
  ternrun run model.gguf "Why is the sky blue?"
  ternrun run hf:OWNER/NAME:Q4_K_M < question.txt
"""


def add_arguments(parser: Parser) -> None:
    """Add this command's flags: those of `complete`."""
    complete.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Answer, or chat."""
    from ternrun.loader.model import open_model

    with open_model(model_path(args), pre=args.pre) as model:
        template = model.chat_template is not None
    if args.text is not None or args.file is not None or args.json or not sys.stdin.isatty():
        args.chat = args.chat or template
        return complete.run(args)
    from ternrun.commands import chat

    parser = Parser()
    chat.add_arguments(parser)
    return chat.run(argparse.Namespace(**(vars(parser.parse([])) | vars(args) | {"plain": not template})))
