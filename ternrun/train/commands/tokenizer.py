"""Train a byte-level BPE tokenizer."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from ternrun.errors import UsageError
from ternrun.files import add_force, check_new, replacing
from ternrun.train.commands.common import add_source_flags, say, source_options

EXAMPLES = """\
examples:
  ternrun train tokenizer text:books --size 8192 --out tokenizer.json
  ternrun train data text:books --tokenizer tokenizer.json --out data/books
  ternrun train tokenizer python --archives wheels --out tokenizer.json
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    add_source_flags(p)
    p.add_argument("--size", type=int, default=4096, help="tokens, special ones included (default %(default)s)")
    p.add_argument("--out", type=Path, required=True, help="tokenizer.json to write")
    add_force(p)


def run(args: argparse.Namespace) -> None:
    """Raises UsageError, LoadError, MissingExtra."""
    from ternrun.train.data.prepare import make_tokenizer
    from ternrun.train.data.sources.registry import read_documents

    if args.out.is_dir():
        raise UsageError(f"{args.out} is a folder; --out names the tokenizer.json to write")
    if args.out.parent.is_dir():
        check_new(args.out, force=args.force)
    skipped, options = Counter[str](), source_options(args)
    texts = [d.text for source in args.sources for d in read_documents(source, options, say, skipped)]
    if not texts:
        raise UsageError("the corpus is empty: there is no text to learn a vocabulary from")
    tokenizer = make_tokenizer(f"bpe:{args.size}", texts)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.out) as temporary:
        temporary.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")  # raises OSError, unlike tokenizer.save
    say(f"{args.out}: {tokenizer.get_vocab_size()} tokens")
