"""Loss, bits per byte and accuracy on held-out text; tasks in Python."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ternrun.errors import UsageError
from ternrun.loader.default_model import NAME, located
from ternrun.train.commands.checkpoint_file import checkpoint_file, is_run
from ternrun.train.commands.number import natural, positive

EXAMPLES = """\
examples:
  ternrun train eval runs/code
  ternrun train eval runs/code/best.safetensors --against code.gguf
  ternrun train eval code.gguf other.gguf --data data/code
  ternrun train eval code.gguf --data data/code --humaneval HumanEval.jsonl --run-generated-code --json
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The flags."""
    p.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="a checkpoint or a run's folder (torch computes), or model files (the runtime does) to set side by side "
        f"(default: {NAME})",
    )
    p.add_argument("--data", type=Path, help="data folder (default: the one a checkpoint was trained on)")
    p.add_argument("--part", help="train, val or holdout (default: val of a checkpoint, holdout of a model file)")
    p.add_argument("--windows", type=natural, default=0, help="checkpoint: score so many windows only (default: all)")
    p.add_argument("--against", type=Path, help="checkpoint: the GGUF exported from it, to compare logits with")
    p.add_argument("--positions", type=positive, default=10_000, help="how many to compare (default %(default)s)")
    p.add_argument("--text-bytes", type=positive, default=200_000, help="file: text to score (default %(default)s)")
    p.add_argument("--functions", type=natural, default=200, help="file: headers to complete (default %(default)s)")
    p.add_argument("--repeat-penalty", type=float, default=1.0, help="file: of those completions (default %(default)s)")
    p.add_argument("--lines", type=natural, default=200, help="file: lines to complete (default %(default)s)")
    p.add_argument("--humaneval", type=Path, metavar="FILE", help="file: HumanEval.jsonl; needs --run-generated-code")
    p.add_argument("--run-generated-code", action="store_true", help="allow code that the model wrote to run here")
    p.add_argument("--json", action="store_true", help="print a JSON list of results in place of the table")


def run(args: argparse.Namespace) -> None:
    """Raises ConfigError, LoadError, UsageError."""
    from ternrun.train.evaluate.model_file import table

    names = args.models or [None]
    if args.against or any(_is_checkpoint(name) for name in names):
        if len(names) > 1:
            raise UsageError("a checkpoint is evaluated by itself; export it to set it beside other models")
        results = [_checkpoint(args, checkpoint_file(Path(names[0] or "")))]
        rows = [[key.replace("_", " "), f"{value:.4g}"] for key, value in results[0].items()]
    else:
        results = _files(args, names)
        rows = table(results)
    if args.json:
        print(json.dumps(results, indent=1))
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for label, *values in rows:
        cells = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        print(f"{label.ljust(widths[0])}  {'  '.join(cells)}")


def _is_checkpoint(name: str | None) -> bool:
    """A run's folder, or a file by its name alone: one that does not exist is missed as what it was meant to be."""
    return name is not None and (is_run(Path(name)) or (name.endswith(".safetensors") and not Path(name).is_dir()))


def _files(args: argparse.Namespace, names: Sequence[str | None]) -> list[dict[str, Any]]:
    from ternrun.train.evaluate.model_file import Tasks, evaluate, texts_of

    if args.data is None:
        raise UsageError("evaluating a model file needs --data FOLDER, made by `ternrun train data`")
    if args.humaneval and not args.run_generated_code:
        raise UsageError(
            "--humaneval runs code that the model wrote: say --run-generated-code if that is what you want"
        )
    tasks = Tasks(
        part=args.part or "holdout", text_bytes=args.text_bytes, functions=args.functions, lines=args.lines,
        humaneval=args.humaneval, repeat_penalty=args.repeat_penalty,
    )  # fmt: skip
    texts = texts_of(args.data, tasks.part)
    return [evaluate(located(name), texts, tasks) for name in names]


def _checkpoint(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    from ternrun.train.export.checkpoint_loader import compare, score

    found = score(path, args.data, args.part or "val", args.windows)
    return found | (compare(path, args.data, args.against, args.positions) if args.against else {})
