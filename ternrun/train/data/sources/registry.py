"""The words that name a source on the command line, and the documents each stands for."""

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
_TABLES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet"}  # by suffix; others are text
_SYNTHETIC_DOCUMENTS = 300
_LOOK = 10_000  # names of a folder that are looked at to tell what it holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of sources: which Python packages, which columns and how much of a table."""

    installed: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    archives: Path | None = None
    column: str = "text"
    licence_column: str = ""  # hf: of each row's own licence
    data_dir: str = ""  # hf: the dataset's folder to read
    limit: int = 0  # tables: the first so many documents; 0: all


def documents(
    source: str, options: Options, report: Callable[[str], None], skipped: Counter[str]
) -> Iterable[Document]:
    """The documents of one source; `skipped` counts what is left out, by reason. Raises UsageError, LoadError."""
    kind, _, rest = spelt_out(source).partition(":")
    if kind == "python":
        return _filtered(chain(python.stdlib(), _packages(options, report)), skipped)
    if kind == "packages":
        if not (options.installed or options.packages or options.archives):
            raise UsageError("packages needs --installed, --packages or --archives to say which")
        return _filtered(_packages(options, report), skipped)
    if kind == "shakespeare":
        return [text.shakespeare(Path(rest) if rest else None)]
    if kind == "synthetic":
        made, floor = synthetic(rest, _SYNTHETIC_DOCUMENTS)
        report(f"synthetic {rest}: the lowest loss possible is {'not known' if math.isnan(floor) else f'{floor:.4f}'}")
        return made
    if kind == "text":
        return text.text_files(Path(rest))
    return islice(_table(kind, rest, options, report, skipped), options.limit or None)


def spelt_out(source: str) -> str:
    """The source, with the kind in front that a bare path stands for. Raises UsageError for what is neither."""
    kind, colon, rest = source.partition(":")
    path = Path(source).expanduser()
    if kind in _WORDS and (rest or (kind in _WORDS[:3] and not colon)):
        return f"{kind}:{Path(rest).expanduser()}" if rest.startswith("~") else source
    if not path.exists():
        raise UsageError(f"{source!r} is not a source; {_meant(source, path)}sources are: {KINDS}")
    if path.is_file():
        return f"{_TABLES.get(path.suffix.lower(), 'text')}:{path}"
    suffixes = Counter(_TABLES.get(p.suffix.lower(), "text") for p in islice(path.rglob("*"), _LOOK) if p.is_file())
    return f"{suffixes.most_common(1)[0][0] if suffixes else 'text'}:{path}"


def _meant(source: str, path: Path) -> str:
    """What a source that is none may have meant: one of the words, or a file beside the path."""
    kind, colon, rest = source.partition(":")
    if near := get_close_matches(kind, _WORDS, 1, 0.7):
        return f"did you mean {near[0]}{colon}{rest}? "
    beside = [p.name for p in islice(path.parent.iterdir(), _LOOK)] if path.parent.is_dir() else []
    near = get_close_matches(path.name, beside, 1, 0.7)
    told = f"did you mean {path.with_name(near[0])}? " if near else ""
    return f"there is no file or folder {source}; {told}"


def _table(
    kind: str, rest: str, options: Options, report: Callable[[str], None], skipped: Counter[str]
) -> Iterator[Document]:
    if kind == "jsonl":
        return text.jsonl_files(Path(rest), options.column)
    if kind == "parquet":
        return text.parquet_files(Path(rest), options.column)
    if not options.limit:
        report(f"hf:{rest} is read to its end, all of it into memory; --limit ROWS ends an endless stream")
    return hf.hf_dataset(
        rest, options.column, data_dir=options.data_dir, licence_column=options.licence_column, skipped=skipped
    )


def _packages(options: Options, report: Callable[[str], None]) -> Iterator[Document]:
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
