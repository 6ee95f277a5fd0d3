"""Say how well a model predicts: perplexity and bits per byte of a text, or log-probabilities of token ids.

A text of any length is scored in overlapping windows: each begins half a window before the first token that it
scores, so every token counts once and, but for the first ones, is predicted from at least half a window of text.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from ternrun.commands.inputs import read_file, read_ids
from ternrun.commands.line.parser import Parser
from ternrun.commands.models import add_only_model, load_model, model_path
from ternrun.commands.options import ENGINE, add_flags, given
from ternrun.errors import UsageError
from ternrun.progress import Progress
from ternrun.runtime.config import EngineConfig

if TYPE_CHECKING:
    from ternrun.api import Model

EXAMPLES = """\
examples:
  ternrun eval model.gguf --text book.txt
  ternrun eval model.gguf --text book.txt --window 2048 --json
  ternrun eval model.gguf --ids sequences.json --top-logprobs 5 --json
"""
WINDOW = 512


def add_arguments(parser: Parser) -> None:
    """Add this command's flags."""
    add_only_model(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", metavar="FILE", help="a UTF-8 text; -: standard input")
    what.add_argument("--ids", metavar="FILE", help="a JSON list of lists of token ids; -: standard input")
    parser.add_argument("--window", metavar="N", type=int, help=f"with --text: tokens a window (default {WINDOW})")
    parser.add_argument("--top-logprobs", metavar="N", type=int, help="with --ids: also the N likeliest tokens")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_flags(parser, "how it runs", EngineConfig, ENGINE)


def run(args: argparse.Namespace) -> int:
    """Read first, then load: a wrong path should not cost a model's loading time."""
    model_path(args)
    engine = given(args, EngineConfig)
    if args.text is None and args.window is not None:
        raise UsageError("--window needs --text")
    if args.ids is None and args.top_logprobs is not None:
        raise UsageError("--top-logprobs needs --ids")
    text = read_file(args.ids if args.text is None else args.text)
    sequences = read_ids(text, args.ids) if args.text is None else []
    with load_model(args, engine) as model:
        if args.text is None:
            show_scores(score(model, sequences, args.top_logprobs or 0), as_json=args.json)
        else:
            show_perplexity(model, text, WINDOW if args.window is None else args.window, as_json=args.json)
    return 0


def score(model: Model, sequences: list[list[int]], top: int) -> dict[str, Any]:
    """The JSON object: position i of a sequence holds its token i + 1. Raises UsageError, ContextError."""
    scored = []
    with Progress("scoring", "sequences") as progress:
        for number, ids in enumerate(sequences):
            progress.update(number, len(sequences))
            entries = model.score(ids, top=top) if len(ids) > 1 else []
            scored.append({"positions": [dataclasses.asdict(entry) for entry in entries]})
    return {"sequences": scored}


def show_scores(scores: dict[str, Any], *, as_json: bool) -> None:
    """Print all positions, or for people a line a sequence."""
    if as_json:
        print(json.dumps(scores))
        return
    for number, sequence in enumerate(scores["sequences"]):
        total = sum(position["logprob"] for position in sequence["positions"])
        print(f"sequence {number}: {len(sequence['positions'])} tokens, log-probability {total:.4f}")


def show_perplexity(model: Model, text: str, window: int, *, as_json: bool) -> None:
    """Score the text and print the figures. Raises UsageError where nothing can be scored."""
    with Progress("scoring", "tokens") as progress:
        result = model.perplexity(text, window, progress.update)
    if as_json:
        print(json.dumps(dataclasses.asdict(result)))
        return
    print(f"perplexity {result.perplexity:.4f}, {result.bits_per_byte:.4f} bits per byte")
    print(f"{result.tokens:,} tokens, {result.bytes:,} bytes, windows of {window} tokens")
