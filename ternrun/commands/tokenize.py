"""Turn text into token ids, exactly as `ternrun complete` would feed them to the model.

The model's own rules decide whether a beginning-of-text token is put in front; special tokens that are written in the
text are recognized, unless `--no-special` says that the text is plain.
"""

from __future__ import annotations

import argparse
import json

from ternrun.commands.inputs import given_text
from ternrun.commands.line.parser import Parser
from ternrun.commands.models import add_model_and_text, open_tokenizer
from ternrun.commands.terminal import safe

EXAMPLES = """\
examples:
  ternrun tokenize model.gguf "def fibonacci(n):"
  ternrun tokenize model.gguf --json -f notes.txt
"""


def add_arguments(parser: Parser) -> None:
    """Add this command's flags."""
    add_model_and_text(parser, "TEXT")
    parser.add_argument("--no-special", action="store_true", help="treat special tokens in the text as plain text")
    parser.add_argument("--json", action="store_true", help="print {ids, pieces}")


def run(args: argparse.Namespace) -> int:
    """Print the ids with the text of each."""
    tokenizer = open_tokenizer(args)
    ids = tokenizer.encode(given_text(args, "text"), special=not args.no_special, eos=True)
    pieces = tokenizer.pieces(ids)
    if args.json:
        print(json.dumps({"ids": ids, "pieces": pieces}))
        return 0
    for token, piece in zip(ids, pieces, strict=True):
        print(f"{token:8}  {safe(json.dumps(piece, ensure_ascii=False))}")
    return 0
