"""Write a model card from what was trained and measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ternrun.errors import UsageError
from ternrun.files import add_force, check_new
from ternrun.train.commands.checkpoint_file import checkpoint_file
from ternrun.train.commands.progress_line import say

EXAMPLES = """\
examples:
  ternrun train eval code.gguf --data data/code --json > evaluation.json
  ternrun train card runs/code/last.safetensors code.gguf --evaluation evaluation.json
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The flags."""
    p.add_argument("checkpoint", type=Path, help="what the model was exported from: a checkpoint or a run's folder")
    p.add_argument("model", type=Path, help="the GGUF; its .json and MODEL_CARD.md are written beside it")
    p.add_argument(
        "--evaluation",
        type=Path,
        required=True,
        nargs="+",
        metavar="FILE",
        help="what `ternrun train eval MODEL ... --json` printed; the first result is the model's own",
    )
    p.add_argument("--data", type=Path, help="data folder (default: the one trained on)")
    p.add_argument("--note", default="", help="what else is to be told of the training")
    add_force(p, "a card and its .json that are there already")


def run(args: argparse.Namespace) -> None:
    """Raises LoadError, UsageError."""
    from ternrun.train.export import model_card
    from ternrun.train.loop import checkpoint

    for path in model_card.written(args.model):
        check_new(path, force=args.force)
    evaluation = [result for path in args.evaluation for result in _results(path)]
    saved = checkpoint.load(checkpoint_file(args.checkpoint))
    data = args.data or Path(saved.config.data.path)
    model_card.write(model_card.gather(saved, data, args.model, evaluation, args.note), args.model)
    say(f"{' and '.join(map(str, model_card.written(args.model)))} written")


def _results(path: Path) -> list[dict[str, Any]]:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not what `ternrun train eval --json` printed: {error}") from None
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise UsageError(f"{path} is not what `ternrun train eval --json` printed: not a list of results")
    return results
