"""The kernel cache: kernels are compiled once on a machine, and later processes verify and map their machine code.

A folder holds the kernels of one combination of CPU, features, instruction set, package versions and source code, one
file a kernel (see `cache_files.py`). A damaged, truncated or foreign file is compiled again, never run. Processes that
start at the same time may compile the same kernel twice.
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
from ternrun.runtime.backend.protocol import ProgressCallback
from ternrun.runtime.cpu.compile import cache_files
from ternrun.runtime.cpu.compile.executable import Executable
from ternrun.runtime.cpu.compile.isa import Isa

Function = Callable[[int, int, int], int]


@cache
def _source_hash() -> bytes:
    """SHA-256 of the CPU backend's source code."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.digest()


def folder_for(isa: Isa) -> Path:
    """The cache folder of an instruction set for this machine, these package versions and this source code."""
    key = hashlib.sha256(_source_hash())
    packages = map(cache_files.package_stamp, ("numba", "llvmlite"))
    for part in (isa.name, isa.cpu, isa.features, *packages, platform.machine()):
        key.update(part.encode() + b"\0")
    return cache_files.cache_root() / f"kernels-{isa.name}-{key.hexdigest()[:20]}"


def symbol_of(name: str) -> str:
    """The symbol of a kernel in its object file."""
    return "ternrun_" + re.sub(r"\W", "_", name)


class CompileProgress:
    """Counts the kernels that one model load compiles, and calls `report(done, total)`.

    `total` is 0 while it is unknown: autotuning compiles its kernels first, and its result determines the others.
    """

    def __init__(self, report: ProgressCallback | None = None) -> None:
        self._report = report
        self._done = self._total = 0
        self.whole = True  # False while more kernels will be announced than `expect` has counted

    def expect(self, count: int) -> None:
        """Announce that `count` more kernels will be compiled."""
        self._total += count
        self._tell()

    def step(self, name: str) -> None:
        """Count one compiled kernel."""
        self._done += 1
        self._tell()

    def _tell(self) -> None:
        if self._report:
            self._report(self._done, self._total if self.whole else 0)


class KernelCache:
    """Kernels of one instruction set, by name: `kernels["rows.norm"]` is the address of its code."""

    def __init__(self, isa: Isa, tally: CompileProgress | None = None) -> None:
        self.isa = isa
        self._tally = tally or CompileProgress()
        self._addresses: dict[str, int] = {}
        self._code = Executable()
        self._folder = folder_for(isa)
        if not cache_files.is_usable(self._folder):  # a read-only home, or another user's
            self._folder = self._private_folder()

    def require(self, names: Iterable[str]) -> None:
        """Load kernels, and compile those that the cache does not have. Raises KernelError."""
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
        """A kernel as a Python callable. Calls release the GIL."""
        return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(self._addresses[name])

    def _private_folder(self) -> Path:
        """A temporary folder that only this process uses."""
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
