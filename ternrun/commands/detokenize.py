"""Turn token ids back into text: the inverse of `ternrun tokenize`.

Control tokens appear by their names, but for the beginning-of-text token that `tokenize` puts in front by itself.
Bytes that are no UTF-8 become the replacement character.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ternrun.commands.inputs import read_ids, read_text
from ternrun.commands.line.parser import Parser
from ternrun.commands.line.words import model_and_ids
from ternrun.commands.models import add_model, open_tokenizer
from ternrun.commands.terminal import shown
from ternrun.errors import UsageError

EXAMPLES = """\
examples:
  ternrun detokenize model.gguf 1604 28304
  ternrun tokenize model.gguf --json "some text" | jq .ids | ternrun detokenize model.gguf
"""
LIST = str.maketrans("[],", "   ")  # what stands around and between ids where another program printed them


def add_arguments(parser: Parser) -> None:
    """Add this command's flags."""
    add_model(parser)
    parser.add_argument(
        "ids", metavar="ID", nargs="*", help="token ids, or [1, 2]; - or nothing: a JSON list on standard input"
    )
    parser.settle(model_and_ids)
    parser.add_argument("--json", action="store_true", help="print {text}")


def run(args: argparse.Namespace) -> int:
    """Print the text of the ids."""
    ids = wanted(args.ids)
    tokenizer = open_tokenizer(args)
    added = tokenizer.add_bos and ids[:1] == [tokenizer.bos_id]
    text = tokenizer.decode(ids[added:], special=True)
    print(json.dumps({"text": text}) if args.json else shown(text, sys.stdout))
    return 0


def wanted(words: Sequence[str]) -> list[int]:
    """The ids given as arguments, else a JSON list from standard input. Raises UsageError."""
    if words and words != ["-"]:
        given = " ".join(words).translate(LIST).split()
        wrong = next((word for word in given if not word.removeprefix("-").isdecimal()), None)
        if wrong is not None:
            raise UsageError(f"a token id is a number, not {wrong!r}")
        return [int(word) for word in given]
    rows = read_ids(read_text(None, "ids"), "standard input")
    if len(rows) > 1:
        raise UsageError("standard input holds several lists of ids; detokenize takes one")
    return rows[0] if rows else []
