"""Write a model card from a checkpoint and its evaluation."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ternrun.errors import UsageError
from ternrun.files import add_force, check_new
from ternrun.train.commands.checkpoint_file import checkpoint_file
from ternrun.train.commands.common import say

EXAMPLES = """\
examples:
  ternrun train eval code.gguf --data data/code --json > evaluation.json
  ternrun train card runs/code/last.safetensors code.gguf --evaluation evaluation.json
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    p.add_argument("checkpoint", type=Path, help="the checkpoint, or run folder, that the model was exported from")
    p.add_argument("model", type=Path, help="the GGUF file; MODEL_CARD.md and a .json are written next to it")
    p.add_argument(
        "--evaluation", type=Path, required=True, nargs="+", metavar="FILE",
        help="output of `ternrun train eval MODEL --json`; the first result must be the model's own",
    )  # fmt: skip
    p.add_argument("--data", type=Path, help="data folder (default: the training data)")
    p.add_argument("--note", default="", help="text to add to the section on training")
    add_force(p, "an existing card and its .json")


def run(args: argparse.Namespace) -> None:
    """Raises LoadError, UsageError."""
    from ternrun.train.evaluate import model_card
    from ternrun.train.loop import checkpoint

    files = model_card.card_files(args.model)
    for path in files:
        check_new(path, force=args.force)
    evaluation = [result for path in args.evaluation for result in _read_results(path)]
    saved = checkpoint.load(checkpoint_file(args.checkpoint))
    data = args.data or Path(saved.config.data.path)
    model_card.write(model_card.gather(saved, data, args.model, evaluation, args.note), args.model)
    say(f"{' and '.join(map(str, files))} written")


def _read_results(path: Path) -> list[dict[str, Any]]:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not the output of `ternrun train eval --json`: {error}") from None
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise UsageError(f"{path} is not the output of `ternrun train eval --json`: not a list of results")
    return results
