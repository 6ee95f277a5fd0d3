"""Processes that compile kernels: one for each usable CPU, each of which gets the next kernel when it is done with one.

They end with the process that started them: their work comes through a pipe, and the end of that pipe is theirs. A
session of their own keeps the terminal's Ctrl-C from them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from ternrun.errors import KernelError
from ternrun.runtime.cpu.compile import cache_files
from ternrun.runtime.cpu.compile.host import usable_cpus
from ternrun.runtime.cpu.compile.isa import BUILD_ENV, Isa

#: Modules whose kernels take longest to compile, which therefore come first; by measured CPU time.
LONG = (
    "attention", "ternary_byte_dot", "ternary_lut16", "linear", "lm_head_screen", "cache", "pack", "lm_head_copy",
    "prepare",
)  # fmt: skip
OnCompiled = Callable[[str], None]

_batches: set[CompileWorkers] = set()  # those at work, in any thread
_lock = threading.Lock()


def stop() -> None:
    """End all compiling that is under way in this process; each `Compilers.run` raises KernelError."""
    with _lock:
        for batch in _batches:
            batch.stop()


def build_environment(isa: Isa) -> dict[str, str]:
    """What a compiling process must be told through its environment, before it imports numba."""
    root = str(Path(__file__).parents[4])
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    return plain | {
        BUILD_ENV: isa.name,
        "NUMBA_CPU_NAME": isa.cpu,
        "NUMBA_CPU_FEATURES": isa.features,
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
    }


class CompileWorkers:
    """The processes that compile some kernels into a folder."""

    def __init__(self, isa: Isa, folder: Path, names: Sequence[str]) -> None:
        self._isa, self._folder, self._names = isa, folder, {*names}
        self._waiting = sorted(self._names, key=_brevity, reverse=True)  # the longest last, to be taken first
        self._stopped = False
        self._running: list[subprocess.Popen[str]] = []
        self._owners: dict[str, subprocess.Popen[str]] = {}

    def run(self, told: OnCompiled) -> None:
        """Compile; `told` gets the name of each kernel that is done. Raises KernelError."""
        said: list[str] = []
        with _lock:
            _batches.add(self)
        try:
            with self._started() as lines:
                for line in lines:
                    said.append(line)
                    if process := self._owners.pop(line.strip(), None):
                        self._give(process)
                        told(line.strip())
            failed = sum(process.wait() != 0 for process in self._running)
        finally:
            with _lock:
                _batches.discard(self)
            self._end()
        if self._stopped:
            raise KernelError("compiling kernels was stopped")
        if failed:
            error = KernelError(f"kernels could not be compiled: {self._reason(said)}")
            error.add_note("".join(said[-20:]))  # all of it, for whoever looks at a traceback
            raise error

    def stop(self) -> None:
        """End the processes; `run` ends then."""
        self._stopped = True
        for process in self._running:
            process.kill()

    def _started(self) -> TextIO:
        """Start the processes; what they print, until the last has closed its end."""
        read, write = os.pipe()
        lines = os.fdopen(read, encoding="utf-8", errors="replace")
        try:
            for _ in range(min(len(self._names), usable_cpus())):
                self._start(write)
        finally:
            os.close(write)
        return lines

    def _start(self, output: int) -> None:
        command = [sys.executable, "-P", "-m", "ternrun.runtime.cpu.compile.build", str(self._folder)]
        process = subprocess.Popen(
            command, env=build_environment(self._isa), stdin=subprocess.PIPE, stdout=output, stderr=output, text=True,
            start_new_session=True,
        )  # fmt: skip
        self._running.append(process)
        self._give(process)

    def _give(self, process: subprocess.Popen[str]) -> None:
        """The next kernel, or the end of work."""
        assert process.stdin
        with suppress(BrokenPipeError):  # a process that has failed; its last words and exit code say why
            if self._waiting:
                name = self._waiting.pop()
                self._owners[name] = process
                process.stdin.write(f"{name}\n")
                process.stdin.flush()
            else:
                process.stdin.close()

    def _end(self) -> None:
        """Leave no process behind, nor what one that was ended had written in part."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdin:
                with suppress(BrokenPipeError):
                    process.stdin.close()
            if process.returncode:
                cache_files.remove_unfinished(self._folder, process.pid)

    def _reason(self, said: list[str]) -> str:
        """The last that the processes said but for the names of kernels that they were done with."""
        reasons = [line for line in map(str.strip, said) if line and line not in self._names]
        return reasons[-1] if reasons else "the process ended without a word"


def _brevity(name: str) -> tuple[int, str]:
    """Puts kernels in order of how long they take to compile, roughly."""
    module = name.rpartition(".")[0]
    return LONG.index(module) if module in LONG else len(LONG), name
