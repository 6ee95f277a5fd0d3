"""The kernel cache: machine code compiled once for this machine, checked and mapped in by every later process.

A folder holds the code of one (CPU, features, instruction set, versions, source), a file a kernel (`cachefiles.py`).
A file that is damaged, cut short or not ours is compiled again, never run. Processes that start at once may compile
the same kernel twice.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import re
import weakref
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from ternrun.errors import KernelError
from ternrun.runtime.backend.protocol import Progress
from ternrun.runtime.cpu.compile import cache_files
from ternrun.runtime.cpu.compile.executable import Executable
from ternrun.runtime.cpu.compile.isa import Isa

Function = Callable[[int, int, int], int]


@cache
def _source_hash() -> bytes:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.digest()


def folder_for(isa: Isa) -> Path:
    """The cache folder of one instruction set on this machine, with these versions."""
    key = hashlib.sha256(_source_hash())
    packages = map(cache_files.package_stamp, ("numba", "llvmlite"))
    for part in (isa.name, isa.cpu, isa.features, *packages, platform.machine()):
        key.update(part.encode() + b"\0")
    return cache_files.cache_root() / f"kernels-{isa.name}-{key.hexdigest()[:20]}"


def symbol_of(name: str) -> str:
    """What a kernel is called in its object file."""
    return "ternrun_" + re.sub(r"\W", "_", name)


class CompileProgress:
    """How many kernels are compiled, over all that one load compiles; `report` gets that and how many there are in all.

    That is 0 while it is not known: kernels that only measure come first, and which others are wanted depends on them.
    """

    def __init__(self, report: Progress | None = None) -> None:
        self._report = report
        self._done = self._total = 0
        self.whole = True  # is what comes next the last?

    def expect(self, count: int) -> None:
        """So many more will be compiled."""
        self._total += count
        self._tell()

    def step(self, name: str) -> None:
        """One more is compiled."""
        self._done += 1
        self._tell()

    def _tell(self) -> None:
        if self._report:
            self._report(self._done, self._total if self.whole else 0)


class KernelCache:
    """Kernels of one instruction set, by name: `kernels["norm.rms"]` is the address of its code."""

    def __init__(self, isa: Isa, tally: CompileProgress | None = None) -> None:
        self.isa = isa
        self._tally = tally or CompileProgress()
        self._addresses: dict[str, int] = {}
        self._code = Executable()
        self._folder = folder_for(isa)
        if not cache_files.is_usable(self._folder):  # a read-only or foreign home
            self._folder = self._private_folder()

    def require(self, names: Iterable[str]) -> None:
        """Load these kernels, compiling those that the cache lacks. Raises KernelError."""
        wanted = sorted(set(names) - set(self._addresses))
        found = {name: cache_files.read(self._folder / name) for name in wanted}
        missing = [name for name, code in found.items() if code is None]
        if missing:
            if not cache_files.is_writable(self._folder):
                self._folder = self._private_folder()
            self._compile(missing)
            found |= {name: cache_files.read(self._folder / name) for name in missing}
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
        from ternrun.runtime.cpu.compile.worker_processes import (
            CompileWorkers,  # not worth its time where all kernels are there
        )

        self._tally.expect(len(names))
        CompileWorkers(self.isa, self._folder, names).run(self._tally.step)
