"""The kernel cache: machine code compiled once for this machine, checked and mapped in by every later process.

A folder holds the objects of one (CPU, features, instruction set, versions, source); a file is a header line
(magic, SHA-256 of the rest) and the object code. A file that is damaged, cut short or not ours is compiled
again, never run. Processes that start at once may compile the same kernel twice; each file is put in place whole.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ternrun.errors import KernelError
from ternrun.runtime.cpu.isa import BUILD_ENV, Isa

MAGIC = b"ternrun-kernel-1"
Function = Callable[[int, int, int], int]
Progress = Callable[[str, int, int], None]


def cache_root() -> Path:
    """TERNRUN_CACHE, else the user's cache folder."""
    if named := os.environ.get("TERNRUN_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ternrun"


@cache
def _source_hash() -> bytes:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.digest()


def _installed(package: str) -> str:
    """What changes when a package is upgraded; reading its metadata would take longer than loading all kernels."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise KernelError(f"{package} is not installed: pip install --upgrade ternrun")
    info = Path(spec.origin).stat()
    return f"{spec.origin} {info.st_size} {info.st_mtime_ns}"


def folder_for(isa: Isa) -> Path:
    """The cache folder of one instruction set on this machine, with these versions."""
    key = hashlib.sha256(_source_hash())
    for part in (isa.name, isa.cpu, isa.features, *map(_installed, ("numba", "llvmlite")), platform.machine()):
        key.update(part.encode() + b"\0")
    return cache_root() / f"kernels-{isa.name}-{key.hexdigest()[:20]}"


def _usable(folder: Path) -> bool:
    """Whether the folder exists or can be made, is ours and nobody else may write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
    except OSError:
        return False
    if not hasattr(os, "getuid"):
        return os.access(folder, os.W_OK)
    return info.st_uid == os.getuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def symbol_of(name: str) -> str:
    """What a kernel is called in its object file."""
    return "ternrun_" + re.sub(r"\W", "_", name)


def write_object(path: Path, code: bytes) -> None:
    """Put an object file in place whole, or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "wb") as file:
        file.write(MAGIC + b" " + hashlib.sha256(code).hexdigest().encode() + b"\n" + code)
    Path(temporary).replace(path)


def read_object(path: Path) -> bytes | None:
    """The code of a file, or None where it is absent or damaged."""
    try:
        head, _, code = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return code if head == MAGIC + b" " + hashlib.sha256(code).hexdigest().encode() else None


def _build_environment(isa: Isa) -> dict[str, str]:
    """What a compiling process must be told through its environment, before it imports numba."""
    root = str(Path(__file__).parents[3])
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    return plain | {
        BUILD_ENV: isa.name,
        "NUMBA_CPU_NAME": isa.cpu,
        "NUMBA_CPU_FEATURES": isa.features,
        "NUMBA_OPT": "0",  # `build.py` optimizes once, at the end; numba would do so after every inner function
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
    }


class Kernels:
    """Kernels of one instruction set, by name: `kernels["norm.rms"]` is the address of its code."""

    def __init__(self, isa: Isa, progress: Progress | None = None) -> None:
        import llvmlite.binding as llvm

        self.isa = isa
        self._progress = progress
        self._addresses: dict[str, int] = {}
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine()
        self._engine: Any = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self._llvm = llvm
        self._folder = folder_for(isa)
        self._private: tempfile.TemporaryDirectory[str] | None = None
        if not _usable(self._folder):  # a read-only or foreign home: compile for this process alone
            self._private = tempfile.TemporaryDirectory(prefix="ternrun-kernels-")
            self._folder = Path(self._private.name)

    def require(self, names: Iterable[str]) -> None:
        """Load these kernels, compiling those that the cache lacks. Raises KernelError."""
        wanted = sorted(set(names) - set(self._addresses))
        found = {name: read_object(self._folder / f"{name}.o") for name in wanted}
        missing = [name for name, code in found.items() if code is None]
        if missing:
            self._compile(missing)
            found |= {name: read_object(self._folder / f"{name}.o") for name in missing}
        for name, code in found.items():
            if code is None:
                raise KernelError(f"the kernel {name} was compiled but cannot be read back from {self._folder}")
            self._engine.add_object_file(self._llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        for name in found:
            self._addresses[name] = self._engine.get_function_address(symbol_of(name))
            if not self._addresses[name]:
                raise KernelError(f"the object file of {name} does not hold it")

    def __getitem__(self, name: str) -> int:
        return self._addresses[name]

    def function(self, name: str) -> Function:
        """A kernel as a Python callable; a call releases the GIL."""
        return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(self._addresses[name])

    def _compile(self, names: list[str]) -> None:
        """Compile in as many processes as there are CPUs, each taking every n-th kernel."""
        workers = min(len(names), os.cpu_count() or 1)
        command = [sys.executable, "-P", "-m", "ternrun.runtime.cpu.build", str(self._folder)]
        environment = _build_environment(self.isa)
        read, write = os.pipe()
        running = [
            subprocess.Popen([*command, *names[i::workers]], env=environment, stdout=write, stderr=write)
            for i in range(workers)
        ]
        os.close(write)
        said = []
        done = 0
        with os.fdopen(read, encoding="utf-8", errors="replace") as lines:  # until the last process has closed its end
            for line in lines:
                said.append(line)
                if line.strip() in names:
                    done += 1
                    if self._progress:
                        self._progress(line.strip(), done, len(names))
        if sum(process.wait() != 0 for process in running):
            raise KernelError("kernels could not be compiled:\n" + "".join(said[-20:]))
