"""Train ternary models: text to tokens, tokens to a checkpoint, a checkpoint to a GGUF that `ternrun complete` runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ternrun.errors import MissingExtra, UsageError
from ternrun.loader.embedded import located

EXAMPLES = """\
examples:
  ternrun train data shakespeare --tokenizer char --split tail --val-share 0.1 --out data/shakespeare
  ternrun train run shakespeare-char --out runs/shakespeare
  ternrun train export runs/shakespeare/best.safetensors shakespeare.gguf
  ternrun train eval runs/shakespeare/best.safetensors
"""


def add_parser(subparsers: Any) -> None:
    """Hang `train` and its own commands under the command line's subparsers."""
    add_arguments(subparsers.add_parser("train", help=__doc__, description=__doc__, epilog=EXAMPLES))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands of `ternrun train`."""
    commands = parser.add_subparsers(dest="train_command", required=True, metavar="COMMAND")
    for name, (summary, flags, body) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        flags(command)
        command.set_defaults(train_body=body)


def run(args: argparse.Namespace) -> int:
    """Run the command that was chosen. Raises TernrunError."""
    for package in ("torch", "safetensors"):
        if find_spec(package) is None:
            raise MissingExtra("ternrun train", "train")
    args.train_body(args)
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.replace(",", " ").split()))


def _times(text: str) -> dict[str, int]:
    pairs = [pair.partition("=") for pair in _names(text)]
    if any(not times.isdigit() for *_, times in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} should look like NAME=TIMES,NAME=TIMES")
    return {name: int(times) for name, _, times in pairs}


def _data_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="python, shakespeare[:FILE], text:PATH, jsonl:PATH, parquet:PATH, hf:NAME, synthetic:KIND",
    )
    p.add_argument("--out", type=Path, required=True, help="folder for tokens, tokenizer and manifest")
    p.add_argument(
        "--tokenizer",
        default="bpe:4096",
        help="bpe:SIZE, char, gpt2:VOCAB,MERGES, a tokenizer.json or a GGUF file (default %(default)s)",
    )
    p.add_argument(
        "--val-share", type=float, default=0.01, help="share of text kept for validation (default %(default)s)"
    )
    p.add_argument(
        "--split",
        choices=("hash", "tail"),
        default="hash",
        help="validate on documents chosen by hash, or on each text's end",
    )
    p.add_argument("--holdout", type=_names, default=(), help="packages kept out of training as a whole")
    p.add_argument("--group-bytes", type=int, default=0, help="most text taken of one package (default: all)")
    p.add_argument("--keep-duplicates", action="store_true", help="do not remove exact and near duplicates")
    p.add_argument(
        "--repeat", type=_times, default={}, metavar="NAME=TIMES,...", help="packages to learn from several times over"
    )
    p.add_argument(
        "--functions", action="store_true", help="learn from each Python function once more, as a text of its own"
    )
    p.add_argument(
        "--documented", type=int, default=1, metavar="TIMES",
        help="with --functions: those of at most 30 lines with a docstring so many times (default %(default)s)",
    )  # fmt: skip
    p.add_argument(
        "--bare", type=int, default=0, metavar="TIMES",
        help="with --functions: those so many times more without docstring and annotations (default %(default)s)",
    )  # fmt: skip
    p.add_argument("--installed", type=_names, default=(), help="python: installed packages to read")
    p.add_argument("--packages", type=_names, default=(), help="python: packages to download with pip into --archives")
    p.add_argument("--archives", type=Path, help="python: folder of wheels and sdists")
    p.add_argument("--column", default="text", help="jsonl, parquet, hf: the column that holds the text")


def _data(args: argparse.Namespace) -> None:
    from ternrun.train.data.prepare import Plan, prepare
    from ternrun.train.data.sources import Options, documents

    if not 0 < args.val_share < 1:
        raise UsageError(f"--val-share must lie between 0 and 1, not {args.val_share}")
    if args.documented < 1 or args.bare < 0:
        raise UsageError("--documented takes a number of times from 1, --bare one from 0")
    if (args.documented > 1 or args.bare) and not args.functions:
        raise UsageError("--documented and --bare go with --functions")
    options = Options(installed=args.installed, packages=args.packages, archives=args.archives, column=args.column)
    skipped: Counter[str] = Counter()
    found = [document for source in args.sources for document in documents(source, options, _say, skipped)]
    plan = Plan(
        tokenizer=args.tokenizer, val_share=args.val_share, split=args.split, holdout=args.holdout,
        group_bytes=args.group_bytes, duplicates=args.keep_duplicates, repeat=args.repeat, functions=args.functions,
        documented=args.documented, bare=args.bare,
    )  # fmt: skip
    prepare(found, args.out, plan, _say, skipped)


def _tokenizer_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("sources", nargs="+", metavar="SOURCE", help="as for `ternrun train data`")
    p.add_argument("--size", type=int, default=4096, help="tokens, special ones included (default %(default)s)")
    p.add_argument("--out", type=Path, required=True, help="tokenizer.json to write")


def _tokenizer(args: argparse.Namespace) -> None:
    from ternrun.train.data.prepare import make_tokenizer
    from ternrun.train.data.sources import Options, documents

    skipped: Counter[str] = Counter()
    texts = [d.text for source in args.sources for d in documents(source, Options(), _say, skipped)]
    if not texts:
        raise UsageError("the corpus is empty: there is no text to learn a vocabulary from")
    made = make_tokenizer(f"bpe:{args.size}", texts)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    made.save(str(args.out))
    _say(f"{args.out}: {made.get_vocab_size()} tokens")


def _run_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("config", help="a preset's name or a TOML file")
    p.add_argument("--out", type=Path, required=True, help="folder for checkpoints and logs")
    p.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        help="change a setting; may be repeated",
    )
    p.add_argument("--compile", action="store_true", help="the same as --set run.compile=true")
    p.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    p.add_argument(
        "--from", dest="begin", metavar="MODEL",
        help="begin with this model file's weights instead of random ones; blocks it lacks begin as copies of its own",
    )  # fmt: skip


def _run(args: argparse.Namespace) -> None:
    from ternrun.train.config import load_config
    from ternrun.train.curve import draw
    from ternrun.train.devices import placed
    from ternrun.train.trainer import Trainer

    config = load_config(args.config, args.changes + ["run.compile=true"] * args.compile)
    if args.begin and args.resume:
        raise UsageError("--resume goes on with the weights of its checkpoint; leave out --from")
    if not args.resume and (args.out / "last.safetensors").exists():
        raise UsageError(f"{args.out} holds a run already; --resume goes on with it, another --out starts anew")
    with placed(config.run, config.data.batch) as place:
        Trainer(config, args.out, place, resume=args.resume, begin=located(args.begin) if args.begin else None).run()
        if place.first:
            draw(args.out, _say)


def _export_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("checkpoint", type=Path)
    p.add_argument("out", type=Path, help="the file to write: GGUF, or ONNX if it ends in .onnx")
    p.add_argument("--data", type=Path, help="data folder with the tokenizer (default: the one trained on)")
    p.add_argument(
        "--type",
        choices=("tq2_0", "tq1_0", "i2_s", "kernel"),
        default="tq2_0",
        help="ternary encoding (default %(default)s)",
    )
    p.add_argument(
        "--dense", choices=("f16", "f32", "q8_0"), default="f16", help="embedding and head (default %(default)s)"
    )
    forms = ("matmulnbits", "int2", "dense")
    p.add_argument(
        "--onnx", choices=forms, default="matmulnbits", help="ternary weights of an .onnx file (default %(default)s)"
    )
    p.add_argument("--name", default="", help="general.name in the file (default: the file's own)")
    p.add_argument(
        "--repeat-penalty", type=float, default=1.0, help="GGUF: what the file recommends to who asks for none"
    )


def _export(args: argparse.Namespace) -> None:
    from ternrun.train.export import export
    from ternrun.train.restore import restored

    found = restored(args.checkpoint, args.data)
    if args.out.suffix == ".onnx":
        from ternrun.train.export_onnx import export_onnx

        export_onnx(found.model, found.tokenizer, args.out, form=args.onnx, dense=args.dense)
        _say(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, its tokenizer.json beside it")
        return
    export(
        found.model, found.tokenizer, args.out, ternary=args.type, dense=args.dense, name=args.name or args.out.stem,
        repeat_penalty=args.repeat_penalty,
    )  # fmt: skip
    _say(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


def _eval_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="a checkpoint (torch computes), or model files (the runtime does) to set side by side (default: code-5m)",
    )
    p.add_argument("--data", type=Path, help="data folder (default: the one a checkpoint was trained on)")
    p.add_argument("--part", help="train, val or holdout (default: val of a checkpoint, holdout of a model file)")
    p.add_argument("--windows", type=int, default=0, help="checkpoint: score so many windows only (default: all)")
    p.add_argument("--against", type=Path, help="checkpoint: the GGUF exported from it, to compare logits with")
    p.add_argument("--positions", type=int, default=10_000, help="how many to compare (default %(default)s)")
    p.add_argument("--text-bytes", type=int, default=200_000, help="file: text to score (default %(default)s)")
    p.add_argument("--functions", type=int, default=200, help="file: headers to complete (default %(default)s)")
    p.add_argument("--repeat-penalty", type=float, default=1.0, help="file: of those completions (default %(default)s)")
    p.add_argument("--lines", type=int, default=200, help="file: lines to complete (default %(default)s)")
    p.add_argument("--humaneval", type=Path, metavar="FILE", help="file: HumanEval.jsonl; needs --run-generated-code")
    p.add_argument("--run-generated-code", action="store_true", help="allow code that the model wrote to run here")
    p.add_argument("--json", action="store_true", help="print a JSON list of results in place of the table")


def _eval(args: argparse.Namespace) -> None:
    from ternrun.train.evalfile import table

    names = args.models or [None]
    if any(str(name).endswith(".safetensors") and Path(name).is_file() for name in names) or args.against:
        if len(names) > 1:
            raise UsageError("a checkpoint is evaluated by itself; export it to set it beside other models")
        results = [_eval_checkpoint(args, Path(names[0] or ""))]
        rows = [[key.replace("_", " "), f"{value:.4g}"] for key, value in results[0].items()]
    else:
        results = _eval_files(args, names)
        rows = table(results)
    if args.json:
        print(json.dumps(results, indent=1))
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for label, *values in rows:
        cells = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        print(f"{label.ljust(widths[0])}  {'  '.join(cells)}")


def _eval_files(args: argparse.Namespace, names: Sequence[str | None]) -> list[dict[str, Any]]:
    from ternrun.train.evalfile import Tasks, evaluate, texts_of

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


def _eval_checkpoint(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    from ternrun.train.restore import compare, score

    found = score(path, args.data, args.part or "val", args.windows)
    return found | (compare(path, args.data, args.against, args.positions) if args.against else {})


def _card_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("checkpoint", type=Path, help="what the model was exported from")
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


def _card(args: argparse.Namespace) -> None:
    from ternrun.train import card, checkpoint

    evaluation = [result for path in args.evaluation for result in _results(path)]
    saved = checkpoint.load(args.checkpoint)
    card.write(card.gather(saved, args.data or Path(saved.config.data.path), args.model, evaluation), args.model)
    _say(f"{args.model.parent / card.CARD} and {args.model.with_suffix('.json')} written")


def _average_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("first", type=Path, help="a checkpoint")
    p.add_argument("second", type=Path, help="another of the same model, with whose optimizer and step it goes on")
    p.add_argument("--share", type=float, default=0.5, help="of the second's weights (default %(default)s)")
    p.add_argument("--out", type=Path, required=True, help="the checkpoint to write, for `run --resume` in its folder")


def _average(args: argparse.Namespace) -> None:
    from ternrun.train import checkpoint
    from ternrun.train.average import average

    checkpoint.save(args.out, average(args.first, args.second, args.share))
    _say(f"{args.out} written")


def _results(path: Path) -> list[dict[str, Any]]:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not what `ternrun train eval --json` printed: {error}") from None
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise UsageError(f"{path} is not what `ternrun train eval --json` printed: not a list of results")
    return results


_Flags = Callable[[argparse.ArgumentParser], None]
_COMMANDS: dict[str, tuple[str, _Flags, Callable[[argparse.Namespace], None]]] = {
    "data": ("turn text into token files with a tokenizer and a validation split", _data_flags, _data),
    "tokenizer": ("learn a byte-level BPE vocabulary", _tokenizer_flags, _tokenizer),
    "run": ("train a model, or go on training it", _run_flags, _run),
    "export": ("write a checkpoint as a GGUF or ONNX file", _export_flags, _export),
    "eval": ("loss, bits per byte and accuracy on held-out text; tasks in Python", _eval_flags, _eval),
    "average": ("average the weights of two checkpoints", _average_flags, _average),
    "card": ("write a model card from what was trained and measured", _card_flags, _card),
}
