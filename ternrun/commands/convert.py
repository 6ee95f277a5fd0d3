"""Write a GGUF file from any model that ternrun opens.

The projections get the encoding that --type names, embedding and head that of --head; all else stays as exact as it
was. A ternary type takes only weights that are ternary already, unless --absmean asks to round them as BitNet does. The
type `kernel` is the layout that ternrun computes with on CPUs with AVX-512: such a file is used where it lies, without
repacking; other CPUs repack it as any other file.
"""

from __future__ import annotations

import argparse

from ternrun.commands.line.parser import Parser
from ternrun.commands.line.words import model_and_file
from ternrun.commands.models import add_model, model_path
from ternrun.commands.terminal import size
from ternrun.files import add_force
from ternrun.progress import Progress

EXAMPLES = """\
examples:
  ternrun convert folder-with-safetensors model.gguf --type tq2_0
  ternrun convert model-i2_s.gguf model-tq1_0.gguf --type tq1_0 --head q8_0
  ternrun convert model.gguf fast.gguf --type kernel
"""


def add_arguments(parser: Parser) -> None:
    """Add this command's flags."""
    add_model(parser)
    parser.add_argument("out_word", metavar="OUT", nargs="?", help="the GGUF file to write")
    parser.add_argument("--out", metavar="OUT", help="the same")
    parser.settle(model_and_file)
    ternary, others = "tq2_0, tq1_0, i2_s, q2_0, iq2_bn, iq1_bn, kernel", "q4_0, q4_1, q5_0, q5_1, q8_0, f16, bf16, f32"
    types = f"ternary: {ternary}; others: {others}"
    parser.add_argument("--type", metavar="TYPE", required=True, help=types)
    parser.add_argument("--head", metavar="TYPE", help="q8_0, f16, bf16 or f32 (default: as in the model)")
    parser.add_argument("--absmean", action="store_true", help="round weights that are not ternary: a lossy step")
    add_force(parser)


def run(args: argparse.Namespace) -> int:
    """Convert, with progress in bytes; print what was written."""
    source = model_path(args)

    from ternrun.loader.convert import convert

    with Progress("writing", "bytes") as progress:
        path = convert(
            source,
            args.out,
            args.type,
            head=args.head,
            absmean=args.absmean,
            pre=args.pre,
            force=args.force,
            progress=progress.update,
        )
    print(f"{path}: {size(path.stat().st_size)}")
    return 0
