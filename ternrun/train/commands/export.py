"""Write a checkpoint as a GGUF or ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ternrun.errors import UsageError
from ternrun.files import add_force, check_new
from ternrun.loader.user_path import from_home
from ternrun.train.commands.checkpoint_file import checkpoint_file
from ternrun.train.commands.progress_line import say

EXAMPLES = """\
examples:
  ternrun train export runs/code code.gguf
  ternrun train export runs/code/best.safetensors code.gguf --type i2_s --dense q8_0
  ternrun train export runs/code/best.safetensors code.onnx --onnx int2
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The flags."""
    p.add_argument("checkpoint", type=Path, help="a checkpoint, or a run's folder: its best.safetensors")
    p.add_argument("out", type=Path, help="the file to write: GGUF, or ONNX if it ends in .onnx")
    p.add_argument("--data", type=Path, help="data folder with the tokenizer (default: the one trained on)")
    p.add_argument(
        "--type",
        type=str.lower,
        choices=("tq2_0", "tq1_0", "i2_s", "kernel"),
        default="tq2_0",
        help="ternary encoding (default %(default)s)",
    )
    p.add_argument(
        "--dense",
        type=str.lower,
        choices=("f16", "f32", "q8_0"),
        default="f16",
        help="embedding and head (default %(default)s)",
    )
    forms = ("matmulnbits", "int2", "dense")
    p.add_argument(
        "--onnx", choices=forms, default="matmulnbits", help="ternary weights of an .onnx file (default %(default)s)"
    )
    p.add_argument("--name", default="", help="general.name in the file (default: the file's own)")
    p.add_argument(
        "--repeat-penalty", type=float, default=1.0, help="GGUF: what the file recommends to who asks for none"
    )
    add_force(p)


def run(args: argparse.Namespace) -> None:
    """Raises ConfigError, LoadError, UsageError."""
    from ternrun.train.export.checkpoint_loader import restored
    from ternrun.train.export.gguf import export

    onnx = args.out.suffix == ".onnx"
    if onnx and args.repeat_penalty != 1.0:
        raise UsageError("an ONNX file recommends no sampling: leave out --repeat-penalty, or write a .gguf")
    out = from_home(args.out)
    check_new(out, force=args.force)
    found = restored(checkpoint_file(args.checkpoint), args.data)
    if onnx:
        from ternrun.train.export.onnx import export_onnx

        export_onnx(found.model, found.tokenizer, out, form=args.onnx, dense=args.dense)
        say(f"{out}: {out.stat().st_size / 1e6:.2f} MB, its tokenizer.json beside it")
        return
    export(
        found.model, found.tokenizer, out, ternary=args.type, dense=args.dense, name=args.name or out.stem,
        repeat_penalty=args.repeat_penalty,
    )  # fmt: skip
    say(f"{out}: {out.stat().st_size / 1e6:.2f} MB")
