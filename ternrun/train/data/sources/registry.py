"""The sources that the command line names, and reading their documents."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path

from ternrun.errors import UsageError
from ternrun.progress import Progress
from ternrun.train.data.document import Document
from ternrun.train.data.sources import hf, python, text
from ternrun.train.data.sources.filters import reason_to_skip
from ternrun.train.data.sources.synthetic import synthetic

KINDS = (
    "a file or folder, python, packages, shakespeare[:FILE], text:PATH, jsonl:PATH, parquet:PATH, hf:NAME, "
    "synthetic:KIND"
)
_WORDS = ("python", "packages", "shakespeare", "text", "jsonl", "parquet", "hf", "synthetic")
_TABLES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}  # others are text
_SYNTHETIC_DOCUMENTS = 300
_MAX_LISTED = 10_000  # files of a folder that are looked at to determine its kind


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """Options of sources: Python packages, and columns and rows of tables."""

    installed: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    archives: Path | None = None
    column: str = "text"
    license_column: str = ""  # hf: the column with each row's license
    data_dir: str = ""  # hf: the folder in the dataset
    limit: int = 0  # tables: maximum number of documents; 0: all


def read_documents(
    source: str, options: SourceOptions, report: Callable[[str], None], skipped: Counter[str]
) -> Iterable[Document]:
    """The documents of one source; `skipped` counts the files left out, by reason. Raises UsageError, LoadError."""
    kind, _, rest = with_kind(source).partition(":")
    if kind == "python":
        return _filtered(chain(python.stdlib(), _packages(options, report)), skipped)
    if kind == "packages":
        if not (options.installed or options.packages or options.archives):
            raise UsageError("packages needs --installed, --packages or --archives")
        return _filtered(_packages(options, report), skipped)
    if kind == "shakespeare":
        return [text.shakespeare(Path(rest) if rest else None)]
    if kind == "synthetic":
        made, floor = synthetic(rest, _SYNTHETIC_DOCUMENTS)
        report(f"synthetic {rest}: the lowest possible loss is {'unknown' if math.isnan(floor) else f'{floor:.4f}'}")
        return made
    if kind == "text":
        return text.text_files(Path(rest))
    return islice(_table(kind, rest, options, report, skipped), options.limit or None)


def with_kind(source: str) -> str:
    """The source as KIND:REST; for a path, the kind follows from its files. Raises UsageError for an unknown source."""
    kind, colon, rest = source.partition(":")
    path = Path(source).expanduser()
    if kind in _WORDS and (rest or (kind in _WORDS[:3] and not colon)):
        return f"{kind}:{Path(rest).expanduser()}" if rest.startswith("~") else source
    if not path.exists():
        raise UsageError(f"{source!r} is not a source; {_suggestion(source, path)}sources are: {KINDS}")
    if path.is_file():
        return f"{_TABLES.get(path.suffix.lower(), 'text')}:{path}"
    suffixes = Counter(
        _TABLES.get(p.suffix.lower(), "text") for p in islice(path.rglob("*"), _MAX_LISTED) if p.is_file()
    )
    return f"{suffixes.most_common(1)[0][0] if suffixes else 'text'}:{path}"


def _suggestion(source: str, path: Path) -> str:
    """A hint for an unknown source: a similar kind, or a file with a similar name."""
    kind, colon, rest = source.partition(":")
    if near := get_close_matches(kind, _WORDS, 1, 0.7):
        return f"did you mean {near[0]}{colon}{rest}? "
    beside = [p.name for p in islice(path.parent.iterdir(), _MAX_LISTED)] if path.parent.is_dir() else []
    near = get_close_matches(path.name, beside, 1, 0.7)
    told = f"did you mean {path.with_name(near[0])}? " if near else ""
    return f"there is no file or folder {source}; {told}"


def _table(
    kind: str, rest: str, options: SourceOptions, report: Callable[[str], None], skipped: Counter[str]
) -> Iterator[Document]:
    if kind == "jsonl":
        return text.jsonl_files(Path(rest), options.column)
    if kind == "parquet":
        return text.parquet_files(Path(rest), options.column)
    if not options.limit:
        report(f"hf:{rest} is read completely into memory; --limit ROWS reads fewer rows")
    return hf.hf_dataset(
        rest, options.column, data_dir=options.data_dir, license_column=options.license_column, skipped=skipped
    )


def _packages(options: SourceOptions, report: Callable[[str], None]) -> Iterator[Document]:
    folder = options.archives
    if options.packages:
        if folder is None:
            raise UsageError("--packages needs --archives FOLDER to download into")
        python.download(options.packages, folder, report)
    archives = python.archives(folder, report) if folder else ()
    return chain(python.installed(options.installed, report), archives)


def _filtered(found: Iterable[Document], skipped: Counter[str]) -> Iterator[Document]:
    listed = list(found)
    with ProcessPoolExecutor() as pool, Progress("reading", "files") as progress:
        reasons = pool.map(reason_to_skip, (d.text for d in listed), chunksize=64)
        for number, (document, reason) in enumerate(zip(listed, reasons, strict=True), 1):
            progress.update(number, len(listed))
            if reason is None:
                yield document
            else:
                skipped[reason] += 1
