"""List the models on this machine: size, type, architecture, and the commands that run each.

It shows the model that ternrun carries, downloads of `ternrun pull` and -hf, the Hugging Face hub's cache, and the
current folder. NAME is what -m takes.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ternrun.commands.line.parser import Parser
from ternrun.commands.terminal import safe, size, table
from ternrun.errors import TernrunError
from ternrun.loader import default_model
from ternrun.loader.hub.local_models import downloads, snapshot_models, snapshots
from ternrun.loader.hub.reference import Reference

if TYPE_CHECKING:
    from ternrun.loader.model import ModelFile

EXAMPLES = """\
examples:
  ternrun list
  ternrun list --json | jq '.[].path'
"""
HEAD = ("NAME", "SIZE", "TYPE", "ARCHITECTURE", "RUNS WITH")


@dataclass(frozen=True, slots=True)
class Listed:
    """One model; `runs` names commands, `refusal` says why there are none."""

    name: str  # what -m takes
    path: str
    bytes: int = 0
    type: str = ""
    architecture: str = ""
    runs: tuple[str, ...] = ()
    refusal: str | None = None


def add_arguments(parser: Parser) -> None:
    """Add this command's flags."""
    parser.add_argument("--json", action="store_true", help="print a JSON list, with paths")


def run(args: argparse.Namespace) -> int:
    """Print a line a model."""
    found = [described(name, path) for name, path in places()]
    if args.json:
        print(json.dumps([asdict(one) for one in found]))
        return 0
    rows = [
        (one.name, size(one.bytes), one.type, one.architecture, ", ".join(one.runs) or f"nothing: {one.refusal}")
        for one in found
    ]
    print(safe(table(HEAD, rows)))
    return 0


def places() -> Iterator[tuple[str, Path]]:
    """What -m takes, and where it lies; each model once."""
    seen: set[Path] = set()
    for name, path in _all():
        try:
            real = path.resolve()
        except OSError:
            continue
        if real not in seen and path.exists():
            seen.add(real)
            yield name, path


def _all() -> Iterator[tuple[str, Path]]:
    if default_model.FILE.is_file():
        yield default_model.NAME, default_model.FILE
    if named := os.environ.get(default_model.DEFAULT):
        yield named, Path(named)
    for path in sorted(Path().glob("*.gguf")):
        if "-of-" not in path.name or "-00001-of-" in path.name:
            yield str(path), path
    for one in downloads():
        yield _name(one.repo, one.file), Path(one.path)
    for repo, folder in snapshots():
        whole = Reference(repo)
        files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.gguf"))]
        for file in files:
            if "-of-" not in file or "-00001-of-" in file:
                yield _name(repo, file), folder / file
        found = None if files else snapshot_models(folder, whole)
        if found is not None:
            yield str(whole), found


def _name(repo: str, file: str) -> str:
    return str(Reference(repo, file=file if file.endswith((".gguf", ".onnx")) else None))


def described(name: str, path: Path) -> Listed:
    """What the headers of a model say; its weights are not read."""
    from ternrun.loader.model import open_model

    try:
        with open_model(path) as model:
            architecture = str(model.metadata.get("general.architecture", ""))
            return Listed(name, str(path), model.size, model.encoding, architecture, _runs(model))
    except (TernrunError, OSError) as error:
        return Listed(name, str(path), path.stat().st_size if path.is_file() else 0, refusal=str(error))


def _runs(model: ModelFile) -> tuple[str, ...]:
    """The commands that run it."""
    if not model.weights.config.causal:
        return ("serve",)
    return ("complete", "chat", "serve") if model.metadata.get("tokenizer.chat_template") else ("complete", "serve")
