"""The kernel cache: machine code compiled once for this machine, checked and mapped in by every later process.

A folder holds the code of one (CPU, features, instruction set, versions, source), a file a kernel (`cachefiles.py`).
A file that is damaged, cut short or not ours is compiled again, never run. Processes that start at once may compile
the same kernel twice.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import sys
import weakref
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from ternrun.errors import KernelError
from ternrun.runtime.cpu import cachefiles
from ternrun.runtime.cpu.executable import Executable
from ternrun.runtime.cpu.host import usable_cpus
from ternrun.runtime.cpu.isa import BUILD_ENV, Isa

LONG = ("attention", "linear", "ternary", "ternary_bytes", "pack", "cache", "screen_copy", "screen")  # to compile
Function = Callable[[int, int, int], int]
Progress = Callable[[str, int, int], None]


@cache
def _source_hash() -> bytes:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.digest()


def folder_for(isa: Isa) -> Path:
    """The cache folder of one instruction set on this machine, with these versions."""
    key = hashlib.sha256(_source_hash())
    packages = map(cachefiles.installed, ("numba", "llvmlite"))
    for part in (isa.name, isa.cpu, isa.features, *packages, platform.machine()):
        key.update(part.encode() + b"\0")
    return cachefiles.cache_root() / f"kernels-{isa.name}-{key.hexdigest()[:20]}"


def symbol_of(name: str) -> str:
    """What a kernel is called in its object file."""
    return "ternrun_" + re.sub(r"\W", "_", name)


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


def _brevity(name: str) -> tuple[int, str]:
    """Puts kernels in order of how long they take to compile, roughly; so equal shares of a list take equally long."""
    module = name.rpartition(".")[0]
    return LONG.index(module) if module in LONG else len(LONG), name


def _reason(said: list[str], names: list[str]) -> str:
    """The last that compiling processes said but for the names of kernels that they were done with."""
    reasons = [line for line in map(str.strip, said) if line and line not in names]
    return reasons[-1] if reasons else "the process ended without a word"


class Kernels:
    """Kernels of one instruction set, by name: `kernels["norm.rms"]` is the address of its code."""

    def __init__(self, isa: Isa, progress: Progress | None = None) -> None:
        self.isa = isa
        self._progress = progress
        self._addresses: dict[str, int] = {}
        self._code = Executable()
        self._folder = folder_for(isa)
        if not cachefiles.usable(self._folder):  # a read-only or foreign home
            self._folder = self._private_folder()

    def require(self, names: Iterable[str]) -> None:
        """Load these kernels, compiling those that the cache lacks. Raises KernelError."""
        wanted = sorted(set(names) - set(self._addresses))
        found = {name: cachefiles.read(self._folder / name) for name in wanted}
        missing = [name for name, code in found.items() if code is None]
        if missing:
            if not cachefiles.writable(self._folder):
                self._folder = self._private_folder()
            self._compile(missing)
            found |= {name: cachefiles.read(self._folder / name) for name in missing}
        code = {symbol_of(name): code for name, code in found.items() if code is not None}
        if len(code) < len(found):
            lost = ", ".join(name for name in missing if found[name] is None)
            raise KernelError(f"compiled kernels cannot be read back from {self._folder}: {lost}")
        addresses = self._code.add(code)
        self._addresses |= {name: addresses[symbol_of(name)] for name in found}

    def __getitem__(self, name: str) -> int:
        return self._addresses[name]

    def function(self, name: str) -> Function:
        """A kernel as a Python callable; a call releases the GIL."""
        return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(self._addresses[name])

    def _private_folder(self) -> Path:
        """A folder for this process alone."""
        from tempfile import TemporaryDirectory

        private = TemporaryDirectory(prefix="ternrun-kernels-")
        weakref.finalize(self, private.cleanup)
        return Path(private.name)

    def _compile(self, names: list[str]) -> None:
        """Compile in a process for each usable CPU, which takes every n-th kernel, those that take long first."""
        import subprocess  # not worth its time where all kernels are there

        workers = min(len(names), usable_cpus())
        names = sorted(names, key=_brevity)
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
            error = KernelError(f"kernels could not be compiled: {_reason(said, names)}")
            error.add_note("".join(said[-20:]))  # all of it, for whoever looks at a traceback
            raise error
