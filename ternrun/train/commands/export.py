"""Export a checkpoint as a GGUF or ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ternrun.errors import UsageError
from ternrun.files import add_force, check_new
from ternrun.loader.user_path import from_home
from ternrun.train.commands.checkpoint_file import checkpoint_file
from ternrun.train.commands.common import say

EXAMPLES = """\
examples:
  ternrun train export runs/code code.gguf
  ternrun train export runs/code/best.safetensors code.gguf --type i2_s --dense q8_0
  ternrun train export runs/code/best.safetensors code.onnx --onnx int2
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    p.add_argument("checkpoint", type=Path, help="a checkpoint, or the folder of a run (its best.safetensors)")
    p.add_argument("out", type=Path, help="file to write: ONNX if the name ends in .onnx, else GGUF")
    p.add_argument("--data", type=Path, help="data folder with the tokenizer (default: the training data)")
    p.add_argument(
        "--type", type=str.lower, choices=("tq2_0", "tq1_0", "i2_s", "kernel"), default="tq2_0",
        help="GGUF: ternary encoding (default %(default)s)",
    )  # fmt: skip
    p.add_argument(
        "--dense", type=str.lower, choices=("f16", "f32", "q8_0"), default="f16",
        help="type of embedding and head (default %(default)s)",
    )  # fmt: skip
    p.add_argument(
        "--onnx", choices=("matmulnbits", "int2", "dense"), default="matmulnbits",
        help="ONNX: form of the ternary weights (default %(default)s)",
    )  # fmt: skip
    p.add_argument("--name", default="", help="GGUF: general.name (default: the name of the file)")
    p.add_argument(
        "--repeat-penalty",
        type=float,
        default=1.0,
        help="GGUF: repeat penalty to recommend (default: none)",
    )
    add_force(p)


def run(args: argparse.Namespace) -> None:
    """Raises ConfigError, LoadError, UsageError."""
    from ternrun.train.export.checkpoint_loader import load_trained
    from ternrun.train.export.gguf import export

    onnx = args.out.suffix == ".onnx"
    if onnx and args.repeat_penalty != 1.0:
        raise UsageError("an ONNX file cannot recommend sampling: leave out --repeat-penalty, or write a .gguf")
    out = from_home(args.out)
    check_new(out, force=args.force)
    trained = load_trained(checkpoint_file(args.checkpoint), args.data)
    if onnx:
        from ternrun.train.export.onnx import export_onnx

        export_onnx(trained.model, trained.tokenizer, out, form=args.onnx, dense=args.dense)
        say(f"{out}: {out.stat().st_size / 1e6:.2f} MB, with tokenizer.json next to it")
        return
    export(
        trained.model, trained.tokenizer, out, ternary=args.type, dense=args.dense, name=args.name or out.stem,
        repeat_penalty=args.repeat_penalty,
    )  # fmt: skip
    say(f"{out}: {out.stat().st_size / 1e6:.2f} MB")
