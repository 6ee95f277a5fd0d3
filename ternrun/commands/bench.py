"""Measure speed: this machine, the kernels, and a model's prompts, decoding and batches, against what is possible.

Without arguments: a tour of about a minute on a synthetic model of 125 million parameters. Run it on a quiet machine;
it says so where the machine was too noisy to judge.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from ternrun.commands.line.parser import Parser
from ternrun.commands.line.words import one_model
from ternrun.commands.models import add_model, model_path
from ternrun.commands.options import ENGINE, add_flags, given
from ternrun.commands.terminal import safe
from ternrun.errors import UsageError
from ternrun.files import add_force, check_new
from ternrun.loader.default_model import DEFAULT
from ternrun.loader.hub.reference import parse
from ternrun.progress import Progress
from ternrun.runtime.config import EngineConfig

EXAMPLES = """\
examples:
  ternrun bench
  ternrun bench model.gguf --work pp512,tg64 --profile
  ternrun bench 2b4t --head f16 --work pp128,pp512,tg64,batch8,batch16,load --threads 2 --json
  ternrun bench nano-125m --work pp128,tg64 --against llama.cpp --llama-bench build/bin/llama-bench
"""


def add_arguments(parser: Parser) -> None:
    """Add this command's flags."""
    add = parser.add_argument
    add_model(parser, usual=f"or a shape: nano-125m, 2b4t, 8b; default: ${DEFAULT}, else nano-125m", variant=False)
    parser.settle(one_model)
    add(
        "--type",
        metavar="TYPE",
        help="of a shape: encoding of the projections (default i2_s, or the peer's)",
    )
    add("--head", metavar="TYPE", help="of a shape: encoding of embedding and head (default f16)")
    add("--folder", metavar="DIR", default="", help="keep the files of shapes there, to be used again")
    add("--work", metavar="LIST", help="ppN, tgN, batchN, ctxN, context, load, kernels, machine; default: the tour")
    add("--runs", metavar="N", type=int, default=5, help="times that each work is measured (default %(default)s)")
    add("--profile", action="store_true", help="show where the time of a step goes")
    add("--plot", metavar="FILE", help="write a roofline plot (needs matplotlib)")
    add_force(parser, "a plot that is there already")
    add("--against", metavar="NAME", help="run llama.cpp, ik_llama.cpp or bitnet.cpp on the same file, turn by turn")
    add("--llama-bench", metavar="PATH", default="", help="llama.cpp's program, in place of llama-cpp-python")
    add("--json", action="store_true", help="print one JSON object")
    add_flags(parser, "how it runs", EngineConfig, {name: ENGINE[name] for name in ("threads", "kv_type")})


def run(args: argparse.Namespace) -> int:
    """Measure, then print."""
    from ternrun.bench import peers, roofline, suite, text
    from ternrun.bench.files import wanted
    from ternrun.bench.works import TOUR
    from ternrun.runtime.cpu.model import default_threads

    engine = EngineConfig.from_dict(given(args, EngineConfig))
    threads = engine.threads or default_threads()
    if not 1 <= args.runs <= 1000:
        raise UsageError(f"--runs must be from 1 to 1000, not {args.runs}")
    if args.llama_bench and not args.against:
        raise UsageError("--llama-bench needs --against NAME")
    if args.plot:
        roofline.check(args.plot)
        check_new(Path(args.plot), force=args.force)
    peer = peers.find(args.against, args.llama_bench, threads) if args.against else None
    options = suite.Options(
        wanted(_model(args), args.type, args.head, args.folder, usual=peer.encoding if peer else ""),
        ",".join(TOUR) if args.work is None else args.work,
        threads,
        args.runs,
        engine.kv_type,
        peer,
    )
    with Progress("measuring", "works", told=True) as progress:
        report = suite.run(options, progress.update)
    if args.plot:
        roofline.draw(report, args.plot)
    if args.json:
        print(json.dumps(report.json(phases=args.profile)))
    else:
        for line in text.lines(report, phases=args.profile):
            print(safe(line))
    return 0


def _model(args: argparse.Namespace) -> str:
    """A shape's name or a path; a model of the hub is one on this machine, or downloaded. Raises as `model_path`."""
    if args.model is None:
        args.model = os.environ.get(DEFAULT) or "nano-125m"
    name: str = args.model
    return name if parse(name) is None else model_path(args)
