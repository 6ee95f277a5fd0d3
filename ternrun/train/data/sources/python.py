"""Python files as documents: the interpreter's standard library, installed packages, and wheels or sdists in a folder.

Archives are read in memory, never unpacked, and no code of theirs runs. Packages whose metadata does not declare a
permissive licence are named and left out; so are tests, vendored copies and stubs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from ternrun.errors import LoadError, UsageError
from ternrun.progress import Progress
from ternrun.train.data.document import Document
from ternrun.train.data.sources.filters import MAX_BYTES
from ternrun.train.data.sources.licences import licence_of

_SKIPPED = re.compile(
    r"(^|/)(tests?|testing|_?vendor(ed)?|extern(al|als)?|third_party|site-packages|dist-packages|pydoc_data|lib2to3|"
    r"idlelib|turtledemo|locale|migrations|__pycache__|[^/]*-info|[^/]*\.data)(/|$)|(^|/)(test_[^/]*|[^/]*_test|conftest|setup)\.py$"
)
Report = Callable[[str], None]
_DOWNLOADS = 4  # at a time
_DAMAGE = (  # what reading an archive may raise; RuntimeError: a member is encrypted, or packed in a way not known
    zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, OSError, EOFError, RuntimeError, ValueError
)  # fmt: skip
Members = list[tuple[str, bytes]]


def stdlib() -> Iterator[Document]:
    """The standard library of the interpreter that runs this (PSF licence)."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if wanted(name) and (text := decoded(path.read_bytes())):
            yield Document(f"stdlib/{name}", "stdlib", "PSF-2.0", text)


def installed(names: Iterable[str], report: Report) -> Iterator[Document]:
    """Files of installed distributions. Raises UsageError for one that is not installed."""
    for name in names:
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise UsageError(f"package {name!r} is not installed") from None
        licence = licence_of(found.read_text("METADATA") or "")
        if licence is None:
            report(f"{name}: no permissive licence in its metadata, left out")
            continue
        for file in sorted(found.files or ()):
            path = Path(str(file.locate()))
            if wanted(file.as_posix()) and path.is_file() and (text := decoded(path.read_bytes())):
                yield Document(f"{name}/{file.as_posix()}", name, licence, text)


def archives(folder: Path, report: Report) -> Iterator[Document]:
    """Files of the wheels (.whl) and sdists (.tar.gz) in `folder`. Raises LoadError for a damaged archive."""
    paths = sorted(p for p in folder.iterdir() if p.name.endswith((".whl", ".tar.gz")))
    if not paths:
        raise UsageError(f"{folder} holds no wheel (.whl) and no sdist (.tar.gz)")
    for path in paths:
        group = re.split(r"-\d", path.name)[0].lower().replace("_", "-")
        try:
            metadata, members = _wheel(path) if path.suffix == ".whl" else _sdist(path)
        except _DAMAGE as error:
            raise LoadError(f"{path.name} is not a readable archive: {error}") from error
        licence = licence_of(metadata)
        if licence is None:
            report(f"{path.name}: no permissive licence in its metadata, left out")
            continue
        for name, data in members:
            if text := decoded(data):
                yield Document(f"{group}/{name}", group, licence, text)


def download(names: Sequence[str], folder: Path, report: Report) -> None:
    """Fetch wheels of the named packages with pip, without their dependencies and without running their code.

    Those that cannot be had are reported, one sentence each. Raises UsageError where none can.
    """
    folder.mkdir(parents=True, exist_ok=True)
    had = 0
    with ThreadPoolExecutor(_DOWNLOADS) as pool, Progress("downloading", "packages") as progress:
        for number, (name, fault) in enumerate(zip(names, pool.map(partial(_fetch, folder), names), strict=True), 1):
            progress.update(number, len(names), name)
            had += not fault
            if fault:
                report(f"{name} could not be had: {fault}")
    if not had:
        raise UsageError(f"pip could download none of {', '.join(names)}")


def _fetch(folder: Path, name: str) -> str:
    """Download one package's wheel; why it could not be had, or nothing."""
    flags = ["-q", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "-d", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *flags, "--", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if not done.returncode:
        return ""
    errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    return (errors[-1] if errors else f"pip ended with {done.returncode}")[:200]


def wanted(name: str) -> bool:
    """Is a file of this relative path Python source that a person wrote for use?"""
    return name.endswith(".py") and not _SKIPPED.search(name)


def decoded(data: bytes) -> str | None:
    """UTF-8 text with plain line ends, or None."""
    if len(data) > MAX_BYTES:
        return None
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None


def _wheel(path: Path) -> tuple[str, Members]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        metadata = next((n for n in names if n.endswith(".dist-info/METADATA")), None)
        text = archive.read(metadata).decode("utf-8", "replace") if metadata else ""
        kept = (name for name in sorted(names) if wanted(name) and archive.getinfo(name).file_size <= MAX_BYTES)
        return text, [(name, archive.read(name)) for name in kept]


def _sdist(path: Path) -> tuple[str, Members]:
    text, files = "", []
    with tarfile.open(path) as archive:
        for member in archive:
            name = str(PurePosixPath(*PurePosixPath(member.name).parts[1:]))
            if not member.isfile() or member.size > MAX_BYTES or not (name == "PKG-INFO" or wanted(name)):
                continue
            handle = archive.extractfile(member)
            data = handle.read() if handle else b""
            if name == "PKG-INFO":
                text = data.decode("utf-8", "replace")
            else:
                files.append((name, data))
    return text, sorted(files)
