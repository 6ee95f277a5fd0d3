"""Show what is in a model file: metadata, tensors, bits a weight; and what of it could not be run, and why.

Exits with 0 also where the model would be refused: the answer was given. A damaged file exits with 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from ternrun.commands.line.parser import Parser
from ternrun.commands.models import add_only_model, model_path
from ternrun.commands.terminal import BOLD, DIM, GREEN, RED, paint, safe, size
from ternrun.errors import LoadError

EXAMPLES = """\
examples:
  ternrun inspect model.gguf
  ternrun inspect model.gguf --tensors
  ternrun inspect model.gguf --json
"""


class Row(NamedTuple):
    """One tensor: shape rows first, bytes in the file."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int


class Contents(NamedTuple):
    """What a file holds, before anyone asked whether it can be run."""

    kind: str
    size: int
    metadata: Mapping[str, Any]
    rows: list[Row]
    refusals: list[str]


def add_arguments(parser: Parser) -> None:
    """Add this command's flags."""
    add_only_model(parser)
    parser.add_argument("--tensors", action="store_true", help="list every tensor, not only the sum of each type")
    parser.add_argument("--json", action="store_true", help="print one JSON object with everything")


def run(args: argparse.Namespace) -> int:
    """Read the file and print it for people or for programs."""
    path = model_path(args)
    contents = read(Path(path))
    summary = summarize(path, contents, contents.refusals or refused(path, args.pre))
    if args.json:
        print(json.dumps(summary))
    else:
        show(summary, tensors=args.tensors)
    return 0


def read(path: Path) -> Contents:
    """Metadata and tensor table of a GGUF file, or of what else can be opened. Raises LoadError."""
    from ternrun.loader.gguf.file import open_gguf
    from ternrun.loader.model import open_model
    from ternrun.loader.unsupported.explain import explain_errors

    if path.suffix == ".onnx":
        return read_onnx(path)
    if path.is_dir():
        with open_model(path) as model:
            if model.path.suffix == ".onnx":
                return read_onnx(model.path)
            if model.text_folder is not None:
                rows = [Row(t.name, t.type, t.shape, t.data.size) for t in model.weights.tensors.values()]
                return Contents("safetensors", model.size, model.metadata, rows, [])
            path = model.path  # the one GGUF file in it
    with explain_errors(path):
        file = open_gguf(path)
    rows = [Row(t.name, t.type, t.shape, t.data.size) for t in file.tensors.values()]
    counts = Counter(t.refusal for t in file.tensors.values() if t.refusal)
    refusals = [f"{count} tensors: {why}" for why, count in counts.items()]
    return Contents(f"GGUF v{file.version}", file.size, file.metadata, rows, refusals)


def read_onnx(path: Path) -> Contents:
    """An ONNX file as the decoder it was recognized as; else its own tensors. Raises LoadError for a damaged file."""
    known: Mapping[str, Any] = {}
    from ternrun.loader.model import open_model
    from ternrun.loader.onnx.open_file import open_file

    try:
        with open_model(path) as model:
            known = model.metadata
            if not model.runner:
                rows = [Row(t.name, t.type, t.shape, t.data.size) for t in model.weights.tensors.values()]
                return Contents("ONNX", model.size, known, rows, [])
    except LoadError:
        pass  # told where it is asked whether ternrun runs it
    graph = open_file(path)
    metadata = {"onnx.producer": graph.producer, "onnx.opset": graph.opsets.get("", 0)} | dict(graph.metadata)
    rows = [Row(t.name, t.dtype, t.shape, t.nbytes) for t in graph.graph.initializers.values()]
    return Contents("ONNX", graph.size, metadata | dict(known), rows, [])


def refused(path: str, pre: str | None) -> list[str]:
    """What opening the model, its tokenizer and its template would refuse; empty where all is well."""
    from ternrun.loader.model import open_model

    try:
        model = open_model(path, pre=pre)
    except LoadError as error:
        return [str(error)]
    found = []
    with model:
        for part in ("tokenizer", "chat_template"):
            try:
                getattr(model, part)
            except LoadError as error:
                found.append(str(error))
    return found


def summarize(path: str, contents: Contents, refusals: Sequence[str]) -> dict[str, Any]:
    """The JSON object; large metadata arrays are given by length and first items."""
    types: dict[str, dict[str, int]] = {}
    for row in contents.rows:
        entry = types.setdefault(row.type, {"tensors": 0, "weights": 0, "bytes": 0})
        entry["tensors"] += 1
        entry["weights"] += prod(row.shape)
        entry["bytes"] += row.bytes
    weights, stored = (sum(entry[key] for entry in types.values()) for key in ("weights", "bytes"))
    return {
        "path": path,
        "format": contents.kind,
        "bytes": contents.size,
        "parameters": weights,
        "bits_per_weight": 8 * stored / max(weights, 1),
        "types": types,
        "metadata": {key: plain(value) for key, value in contents.metadata.items()},
        "tensors": [row._asdict() for row in contents.rows],
        "refusals": list(refusals),
    }


def plain(value: Any) -> Any:
    """A metadata value as JSON has it."""
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    head = value[:8].tolist() if hasattr(value, "dtype") else [plain(value[i]) for i in range(min(8, len(value)))]
    return head if len(value) <= 8 else {"length": len(value), "first": head}


def show(summary: Mapping[str, Any], *, tensors: bool) -> None:
    """Print the summary for people."""
    out = sys.stdout
    print(paint(safe(summary["path"]), BOLD, out))
    print(
        f"{summary['format']}, {size(summary['bytes'])}, {summary['parameters'] / 1e6:,.1f} M parameters, "
        f"{summary['bits_per_weight']:.2f} bits a weight\n"
    )
    width = max(map(len, summary["metadata"]), default=0)
    for key, value in summary["metadata"].items():
        text = json.dumps(value, ensure_ascii=False)
        print(f"{paint(safe(f'{key:{width}}'), DIM, out)}  {safe(text[:100])}{'...' if len(text) > 100 else ''}")
    print()
    for kind, entry in summary["types"].items():
        bits = 8 * entry["bytes"] / max(entry["weights"], 1)
        share = f"{entry['tensors']:5} tensors  {entry['weights'] / 1e6:10,.2f} M weights  {bits:6.3f} bits each"
        print(f"{kind:10} {share}  {size(entry['bytes'])}")
    if tensors:
        print()
        width = max((len(row["name"]) for row in summary["tensors"]), default=0)
        for row in summary["tensors"]:
            shape = " x ".join(map(str, row["shape"]))
            print(f"{safe(row['name']):{width}}  {row['type']:10} {shape:>18}  {size(row['bytes'])}")
    print()
    if not summary["refusals"]:
        print(paint("ternrun can run this model.", GREEN, out))
    for reason in summary["refusals"]:
        print(f"{paint('refused:', RED, out)} {safe(reason)}")
