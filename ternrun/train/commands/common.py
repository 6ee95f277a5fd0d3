"""Shared by the commands of `ternrun train`: progress lines, argument types, and the flags that describe sources."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ternrun.train.data.sources.registry import SourceOptions

SOURCES = (
    "a text file, .jsonl, .json, .parquet, or a folder of such files; python, packages, shakespeare[:FILE], text:PATH, "
    "jsonl:PATH, parquet:PATH, hf:NAME, synthetic:KIND"
)


def say(text: str) -> None:
    """Print one line to standard error at once; standard output holds results only."""
    print(text, file=sys.stderr, flush=True)


def natural(text: str) -> int:
    """An argument type: a whole number from 0."""
    return _whole_number(0, text)


def positive(text: str) -> int:
    """An argument type: a whole number from 1."""
    return _whole_number(1, text)


def _whole_number(low: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if number < low:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low}")
    return number


def names(text: str) -> tuple[str, ...]:
    """An argument type: names separated by commas or spaces."""
    return tuple(filter(None, text.replace(",", " ").split()))


def add_source_flags(p: argparse.ArgumentParser) -> None:
    """Add the sources and their options."""
    p.add_argument("sources", nargs="+", metavar="SOURCE", help=SOURCES)
    p.add_argument("--installed", type=names, default=(), help="python, packages: installed packages to read")
    p.add_argument(
        "--packages", type=names, default=(), help="python, packages: packages to download with pip into --archives"
    )
    p.add_argument("--archives", type=Path, help="python, packages: folder of wheels and sdists to read")
    p.add_argument("--column", default="text", help="jsonl, parquet, hf: column with the text (default %(default)s)")
    p.add_argument(
        "--limit",
        type=natural,
        default=0,
        metavar="ROWS",
        help="jsonl, parquet, hf: largest number of rows (default: all)",
    )
    p.add_argument("--data-dir", default="", metavar="FOLDER", help="hf: folder in the dataset to read")
    p.add_argument(
        "--license-column", "--licence-column", default="", metavar="COLUMN",
        help="hf: column with the license of a row; rows without a permissive license are left out",
    )  # fmt: skip


def source_options(args: argparse.Namespace) -> SourceOptions:
    """The options of the sources from the parsed flags."""
    from ternrun.train.data.sources.registry import SourceOptions

    return SourceOptions(
        installed=args.installed, packages=args.packages, archives=args.archives, column=args.column,
        license_column=args.license_column, data_dir=args.data_dir, limit=args.limit,
    )  # fmt: skip
