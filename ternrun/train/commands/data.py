"""Prepare training data: tokenize text and split off a validation part."""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import chain
from pathlib import Path
from shlex import quote

from ternrun.errors import UsageError
from ternrun.files import add_force
from ternrun.train.commands.common import add_source_flags, names, natural, positive, say, source_options

EXAMPLES = """\
examples:
  ternrun train data notes.txt --out data/notes
  ternrun train data shakespeare --tokenizer char --split tail --val-share 0.1 --out data/shakespeare
  ternrun train data python --archives wheels --packages rich,click --holdout click --functions --out data/code
  ternrun train data jsonl:stories --column story --tokenizer bpe:8192 --out data/stories
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    add_source_flags(p)
    p.add_argument("--out", type=Path, required=True, help="new folder for token files, tokenizer and manifest")
    add_force(p, "an existing data folder")
    p.add_argument(
        "--tokenizer", default="bpe:4096",
        help="bpe:SIZE, char, gpt2:VOCAB,MERGES, a tokenizer.json or a GGUF file (default %(default)s)",
    )  # fmt: skip
    p.add_argument(
        "--val-share", type=float, default=0.01, help="share of the text used for validation (default %(default)s)"
    )
    p.add_argument(
        "--split", choices=("hash", "tail"), default="",
        help="validate on documents chosen by hash, or on the end of each text (default: hash; tail for few documents)",
    )  # fmt: skip
    p.add_argument("--dtype", choices=("u16", "u32"), default="", help="type of token ids (default: what fits)")
    p.add_argument("--holdout", type=names, default=(), help="packages to keep out of training completely")
    p.add_argument("--group-bytes", type=int, default=0, help="limit of text from one package (default: no limit)")
    p.add_argument("--keep-duplicates", action="store_true", help="keep exact and near duplicates")
    p.add_argument(
        "--repeat", type=_repeats, default={}, metavar="NAME=TIMES,...", help="packages to include several times"
    )
    p.add_argument(
        "--functions", action="store_true", help="also include each Python function as a document of its own"
    )
    p.add_argument(
        "--documented", type=positive, default=1, metavar="TIMES",
        help="with --functions: copies of functions of up to 30 lines with a docstring (default %(default)s)",
    )  # fmt: skip
    p.add_argument(
        "--bare", type=natural, default=0, metavar="TIMES",
        help="with --functions: further copies of them without docstring and annotations (default %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Raises UsageError, LoadError, MissingExtra; TernrunError if the disk is full."""
    from ternrun.train.data.options import PrepareOptions
    from ternrun.train.data.prepare import prepare
    from ternrun.train.data.sources.registry import read_documents

    if not 0 < args.val_share < 1:
        raise UsageError(f"--val-share must lie between 0 and 1, not {args.val_share}")
    if (args.documented > 1 or args.bare) and not args.functions:
        raise UsageError("--documented and --bare go with --functions")
    skipped, sources = Counter[str](), source_options(args)
    documents = chain.from_iterable(read_documents(source, sources, say, skipped) for source in args.sources)
    options = PrepareOptions(
        tokenizer=args.tokenizer, val_share=args.val_share, split=args.split, holdout=args.holdout,
        group_bytes=args.group_bytes, keep_duplicates=args.keep_duplicates, repeat=args.repeat,
        functions=args.functions, documented=args.documented, bare=args.bare, dtype=args.dtype,
    )  # fmt: skip
    prepare(documents, args.out, options, say, skipped, force=args.force)
    out, run = (quote(str(path)) for path in (args.out, Path("runs") / args.out.name))
    say(f"train on it, for example: ternrun train run shakespeare-char --data {out} --out {run}")


def _repeats(text: str) -> dict[str, int]:
    pairs = [pair.partition("=") for pair in names(text)]
    if any(not times.isdecimal() or int(times) < 1 for *_, times in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} should look like NAME=TIMES,NAME=TIMES, with TIMES from 1")
    return {name: int(times) for name, _, times in pairs}
