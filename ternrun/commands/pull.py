"""Download a model from the Hugging Face hub, or resume a download that broke off.

A model is OWNER/NAME, with :QUANT for one encoding, or the address of its page or file. With no file named, a GGUF file
with ternary weights is preferred, then one of about 4 bits, then safetensors, then ONNX; the reason is printed. What a
model needs beside its weights comes with it, in a folder NAME. No other file is written over. The path to load is the
only line on standard output.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ternrun.commands.line.parser import Parser
from ternrun.commands.line.words import one_model
from ternrun.errors import UsageError
from ternrun.files import add_force

EXAMPLES = """\
examples:
  ternrun pull microsoft/bitnet-b1.58-2B-4T-gguf
  ternrun pull HuggingFaceTB/SmolLM2-135M-Instruct-GGUF:Q8_0 --to models
  ternrun pull https://huggingface.co/OWNER/NAME/blob/main/FILE.gguf
  ternrun complete -m "$(ternrun pull OWNER/NAME)" "Once upon a time"

HF_TOKEN names your access token, HF_ENDPOINT another hub.
"""


def add_arguments(parser: Parser) -> None:
    """Add this command's flags."""
    parser.add_argument("word", metavar="OWNER/NAME", nargs="?", help="the repository, or a page's address")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the file (default: the best one, with the reason)")
    parser.add_argument("-m", "--model", metavar="OWNER/NAME", help="the repository, too")
    parser.add_argument("--to", metavar="FOLDER", default=".", type=Path, help="where to put it (default: here)")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit (default: main)")
    add_force(parser, "a file that is there already with other content")
    parser.settle(one_model)


def run(args: argparse.Namespace) -> int:
    """Download, and print the path to load."""
    from ternrun.commands.download import downloaded
    from ternrun.loader.hub.reference import repository
    from ternrun.loader.user_path import from_home

    if args.model is None:
        raise UsageError("the repository is missing: ternrun pull OWNER/NAME")
    wanted = repository(args.model)
    if args.file is not None:
        if wanted.file or wanted.quant:
            raise UsageError(f"the file is named twice, by {args.model} and by {args.file}")
        wanted = replace(wanted, file=args.file)
    if args.revision is not None:
        wanted = replace(wanted, revision=args.revision)
    print(downloaded(wanted, from_home(args.to), force=args.force))
    return 0
