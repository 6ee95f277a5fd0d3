"""Flags that say where text comes from, the same for every command that reads some."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ternrun.train.commands.number import natural

if TYPE_CHECKING:
    from ternrun.train.data.sources.registry import Options


def add_source_flags(p: argparse.ArgumentParser) -> None:
    """The sources and their settings."""
    kinds = (
        "a text file, .jsonl, .json, .parquet, or a folder of such; python, packages, shakespeare[:FILE], text:PATH, "
        "jsonl:PATH, parquet:PATH, hf:NAME, synthetic:KIND"
    )
    p.add_argument("sources", nargs="+", metavar="SOURCE", help=kinds)
    p.add_argument("--installed", type=names, default=(), help="python, packages: installed packages to read")
    p.add_argument("--packages", type=names, default=(), help="the same: packages to download with pip into --archives")
    p.add_argument("--archives", type=Path, help="the same: folder of wheels and sdists")
    p.add_argument("--column", default="text", help="jsonl, parquet, hf: the column that holds the text")
    p.add_argument(
        "--limit", type=natural, default=0, metavar="ROWS", help="of a table, the first so many (default: all)"
    )
    p.add_argument("--data-dir", default="", metavar="FOLDER", help="hf: the folder in the dataset to read")
    p.add_argument(
        "--licence-column",
        default="",
        metavar="COLUMN",
        help="hf: of each row's licence, which must be permissive",
    )


def source_options(args: argparse.Namespace) -> Options:
    """What the flags say."""
    from ternrun.train.data.sources.registry import Options

    return Options(
        installed=args.installed, packages=args.packages, archives=args.archives, column=args.column,
        licence_column=args.licence_column, data_dir=args.data_dir, limit=args.limit,
    )  # fmt: skip


def names(text: str) -> tuple[str, ...]:
    """Names with commas or spaces between them."""
    return tuple(filter(None, text.replace(",", " ").split()))
