"""Turn text into token ids, exactly as `ternrun complete` would feed them to the model.

The model's own rules decide whether a beginning-of-text token is put in front; special tokens that are written in the
text are recognized, unless `--no-special` says that the text is plain.
"""

from __future__ import annotations

import argparse
import json

from ternrun.commands.inputs import read_text
from ternrun.commands.models import add_model, open_tokenizer
from ternrun.commands.terminal import safe

EXAMPLES = """\
examples:
  ternrun tokenize model.gguf "def fibonacci(n):"
  ternrun tokenize model.gguf --json - < notes.txt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    add_model(parser, needed=True)
    parser.add_argument("text", metavar="TEXT", nargs="?", help="the text; - or nothing: standard input")
    parser.add_argument("--no-special", action="store_true", help="treat special tokens in the text as plain text")
    parser.add_argument("--json", action="store_true", help="print {ids, pieces}")


def run(args: argparse.Namespace) -> int:
    """Print the ids with the text of each."""
    tokenizer = open_tokenizer(args)
    ids = tokenizer.encode(read_text(args.text, "text"), special=not args.no_special)
    pieces = tokenizer.pieces(ids)
    if args.json:
        print(json.dumps({"ids": ids, "pieces": pieces}))
        return 0
    for token, piece in zip(ids, pieces, strict=True):
        print(f"{token:8}  {safe(json.dumps(piece, ensure_ascii=False))}")
    return 0
