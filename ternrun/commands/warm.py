"""Compile kernels ahead, so that the first run of a model on this machine starts at once.

For one model (the carried one if none is named): all that completing and serving it will use. With --all: whatever any
model may need on this CPU. Compiled kernels are kept in the user's cache folder, or in TERNRUN_CACHE.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from ternrun.commands.line.parser import Parser
from ternrun.commands.models import add_only_model, compiling, load_model
from ternrun.commands.options import ENGINE, add_flags, given
from ternrun.commands.terminal import safe
from ternrun.errors import UsageError
from ternrun.progress import Progress
from ternrun.runtime.config import EngineConfig

EXAMPLES = """\
examples:
  ternrun warm
  ternrun warm model.gguf --kv-type int8
  ternrun warm --all
  TERNRUN_CACHE=/opt/kernels ternrun warm --isa avx2    (an image for many machines: run it with TERNRUN_ISA=avx2)
"""


def add_arguments(parser: Parser) -> None:
    """Add this command's flags."""
    add_only_model(parser)
    parser.add_argument("--all", action="store_true", help="all kernels that any model may need here, not one model's")
    parser.add_argument("--isa", metavar="NAME", help="for avx512, avxvnni, avx2 or portable, as with TERNRUN_ISA")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_flags(parser, "how it will run", EngineConfig, {name: ENGINE[name] for name in ("context", "kv_type")})


def run(args: argparse.Namespace) -> int:
    """Compile what is missing, and say what that was."""
    from ternrun.runtime.cpu.compile import cache_files
    from ternrun.runtime.cpu.compile.isa import ENV, select_isa
    from ternrun.runtime.cpu.compile.kernel_cache import folder_for

    if args.all and args.model is not None:
        raise UsageError("--all is for any model: name one, or give --all")
    if args.isa:
        os.environ[ENV] = args.isa
    folder = folder_for(select_isa())
    if not (cache_files.is_usable(folder) and cache_files.is_writable(folder)):
        raise UsageError(f"kernels cannot be kept in {folder}: it is not a folder of yours that can be written to")
    before, start = _kept(), time.perf_counter()
    if args.all:
        _compile_all()
    else:
        load_model(args, given(args, EngineConfig)).close()
    _tell(sorted(_kept() - before), time.perf_counter() - start, as_json=args.json)
    return 0


def _compile_all() -> None:
    from ternrun.runtime.cpu import autotune
    from ternrun.runtime.cpu.compile.kernel_cache import CompileProgress, KernelCache
    from ternrun.runtime.cpu.kernel_catalogue import all_kernels

    with Progress(compiling(), "kernels", told=True) as progress:
        tally = CompileProgress(progress.update)
        chosen = autotune.select_isa(tally=tally)
        KernelCache(chosen, tally).require(all_kernels(chosen))


def _kept() -> set[Path]:
    """The files of all kernels that are there."""
    from ternrun.runtime.cpu.compile import cache_files

    return {
        path for path in cache_files.cache_root().glob("kernels-*/*.*") if not path.name.startswith(".")
    }  # what has no dot is no kernel: tune.FILE


def _tell(compiled: list[Path], seconds: float, *, as_json: bool) -> None:
    from ternrun.runtime.cpu import autotune
    from ternrun.runtime.cpu.compile.kernel_cache import folder_for

    folders = sorted({str(path.parent) for path in compiled}) or [str(folder_for(autotune.select_isa()))]
    if as_json:
        names = [path.name for path in compiled]
        print(json.dumps({"compiled": names, "folders": folders, "seconds": round(seconds, 3)}))
    elif compiled:
        print(safe(f"compiled {len(compiled)} kernels in {seconds:.1f} s: {', '.join(folders)}"))
    else:
        print(safe(f"all kernels are there already: {folders[0]}"))
