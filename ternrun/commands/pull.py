"""Download a model from the Hugging Face hub, or resume a download that broke off.

With no FILE, a GGUF file with ternary weights is preferred, then one of about 4 bits, then safetensors, then ONNX; the
reason is printed. What a model needs beside its weights comes with it, in a folder NAME. No other file is written over.
The path to load is the only line on standard output.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from ternrun.commands.terminal import safe, size
from ternrun.files import add_force

EXAMPLES = """\
examples:
  ternrun pull microsoft/bitnet-b1.58-2B-4T-gguf
  ternrun pull HuggingFaceTB/SmolLM2-135M-Instruct-GGUF --to models
  ternrun complete -m "$(ternrun pull OWNER/NAME)" "Once upon a time"

HF_TOKEN names your access token, HF_ENDPOINT another hub.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    parser.add_argument("repo", metavar="OWNER/NAME", help="the repository")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the file (default: the best one, with the reason)")
    parser.add_argument("--to", metavar="FOLDER", default=".", type=Path, help="where to put it (default: here)")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit (default: main)")
    add_force(parser, "a file that is there already with other content")


def run(args: argparse.Namespace) -> int:
    """Download, and print the path to load."""
    from ternrun.loader.home import from_home
    from ternrun.loader.hub import pull

    logging.getLogger("huggingface_hub.file_download").setLevel(logging.ERROR)  # what is final, it raises
    path, choice = pull(args.repo, args.file, to=from_home(args.to), revision=args.revision, force=args.force)
    total = size(sum(f.size for f in choice.files))
    names = choice.files[0].name + (f" and {len(choice.files) - 1} more" if len(choice.files) > 1 else "")
    print(safe(f"{names}, {total} ({choice.reason})"), file=sys.stderr)
    print(path)
    return 0
