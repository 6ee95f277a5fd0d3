"""Evaluate a checkpoint or model files: loss, bits per byte and accuracy on held-out text, and Python tasks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ternrun.errors import UsageError
from ternrun.loader.default_model import NAME, located
from ternrun.train.commands.checkpoint_file import checkpoint_file, is_run
from ternrun.train.commands.common import natural, positive

EXAMPLES = """\
examples:
  ternrun train eval runs/code
  ternrun train eval runs/code/best.safetensors --against code.gguf
  ternrun train eval code.gguf other.gguf --data data/code
  ternrun train eval code.gguf --data data/code --humaneval HumanEval.jsonl --run-generated-code --json
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    p.add_argument(
        "models", nargs="*", metavar="MODEL",
        help="a checkpoint or the folder of a run, computed by torch, or model files to compare, computed by the "
        f"runtime (default: {NAME})",
    )  # fmt: skip
    p.add_argument("--data", type=Path, help="data folder (default for a checkpoint: its training data)")
    p.add_argument("--part", help="train, val or holdout (default: val for a checkpoint, holdout for a model file)")
    p.add_argument("--json", action="store_true", help="print a JSON list of results instead of a table")
    checkpoint = p.add_argument_group("for a checkpoint")
    checkpoint.add_argument("--windows", type=natural, default=0, help="number of windows to score (default: all)")
    checkpoint.add_argument("--against", type=Path, help="exported GGUF file whose logits to compare")
    checkpoint.add_argument(
        "--positions", type=positive, default=10_000, help="with --against: positions to compare (default %(default)s)"
    )
    file = p.add_argument_group("for model files")
    file.add_argument("--text-bytes", type=positive, default=200_000, help="text to score (default %(default)s)")
    file.add_argument("--functions", type=natural, default=200, help="functions to complete (default %(default)s)")
    file.add_argument(
        "--repeat-penalty", type=float, default=1.0, help="for completions of functions (default %(default)s)"
    )
    file.add_argument("--lines", type=natural, default=200, help="lines to complete (default %(default)s)")
    file.add_argument("--humaneval", type=Path, metavar="FILE", help="HumanEval.jsonl; needs --run-generated-code")
    file.add_argument("--run-generated-code", action="store_true", help="allow running code that the model wrote")


def run(args: argparse.Namespace) -> None:
    """Raises ConfigError, LoadError, UsageError."""
    from ternrun.train.evaluate.model_file import table

    names = args.models or [None]
    if args.against or any(_is_checkpoint(name) for name in names):
        if len(names) > 1:
            raise UsageError("a checkpoint is evaluated alone; export it to compare it with other models")
        results = [_evaluate_checkpoint(args, checkpoint_file(Path(names[0] or "")))]
        rows = [[key.replace("_", " "), f"{value:.4g}"] for key, value in results[0].items()]
    else:
        results = _evaluate_files(args, names)
        rows = table(results)
    if args.json:
        print(json.dumps(results, indent=1))
    else:
        _print_table(rows)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for label, *values in rows:
        cells = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        print(f"{label.ljust(widths[0])}  {'  '.join(cells)}")


def _is_checkpoint(name: str | None) -> bool:
    """Whether an argument means a checkpoint: the folder of a run, or any file name with .safetensors."""
    return name is not None and (is_run(Path(name)) or (name.endswith(".safetensors") and not Path(name).is_dir()))


def _evaluate_files(args: argparse.Namespace, names: Sequence[str | None]) -> list[dict[str, Any]]:
    from ternrun.train.evaluate.model_file import Tasks, evaluate, read_texts

    if args.data is None:
        raise UsageError("evaluating a model file needs --data FOLDER, made by `ternrun train data`")
    if args.humaneval and not args.run_generated_code:
        raise UsageError("--humaneval runs code that the model wrote; --run-generated-code allows this")
    tasks = Tasks(
        part=args.part or "holdout", text_bytes=args.text_bytes, functions=args.functions, lines=args.lines,
        humaneval=args.humaneval, repeat_penalty=args.repeat_penalty,
    )  # fmt: skip
    texts = read_texts(args.data, tasks.part)
    return [evaluate(located(name), texts, tasks) for name in names]


def _evaluate_checkpoint(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    from ternrun.train.evaluate.checkpoint import compare, score

    scores = score(path, args.data, args.part or "val", args.windows)
    return scores | (compare(path, args.data, args.against, args.positions) if args.against else {})
