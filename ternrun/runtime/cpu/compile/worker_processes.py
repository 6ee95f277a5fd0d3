"""Worker processes that compile kernels, one for each usable CPU; each takes the next kernel when it finishes one.

The workers end with the process that started them, because they read kernel names from a pipe until its end. They run
in a session of their own, so the terminal's Ctrl-C does not reach them.
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

#: Modules whose kernels take longest to compile, by measured CPU time. They are compiled first.
LONG = (
    "attention", "ternary_byte_dot", "ternary_lut16", "linear", "lm_head_screen", "cache", "pack", "lm_head_copy",
    "prepare",
)  # fmt: skip
OnCompiled = Callable[[str], None]

_batches: set[CompileWorkers] = set()  # the running batches of all threads
_lock = threading.Lock()


def stop() -> None:
    """Stop all compiling in this process; each running `CompileWorkers.run` raises KernelError."""
    with _lock:
        for batch in _batches:
            batch.stop()


def build_environment(isa: Isa) -> dict[str, str]:
    """The environment of a worker process, which must be set before it imports numba."""
    root = str(Path(__file__).parents[4])
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    return plain | {
        BUILD_ENV: isa.name,
        "NUMBA_CPU_NAME": isa.cpu,
        "NUMBA_CPU_FEATURES": isa.features,
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
    }


class CompileWorkers:
    """Worker processes that compile kernels into a folder."""

    def __init__(self, isa: Isa, folder: Path, names: Sequence[str]) -> None:
        self._isa, self._folder, self._names = isa, folder, {*names}
        self._waiting = sorted(self._names, key=_brevity, reverse=True)  # taken from the end: the slowest first
        self._stopped = False
        self._running: list[subprocess.Popen[str]] = []
        self._owners: dict[str, subprocess.Popen[str]] = {}

    def run(self, on_compiled: OnCompiled) -> None:
        """Compile all kernels; calls `on_compiled` with the name of each finished kernel. Raises KernelError."""
        output: list[str] = []
        with _lock:
            _batches.add(self)
        try:
            with self._started() as lines:
                for line in lines:
                    output.append(line)
                    if process := self._owners.pop(line.strip(), None):
                        self._give(process)
                        on_compiled(line.strip())
            failed = sum(process.wait() != 0 for process in self._running)
        finally:
            with _lock:
                _batches.discard(self)
            self._end()
        if self._stopped:
            raise KernelError("compiling kernels was stopped")
        if failed:
            error = KernelError(f"kernels could not be compiled: {self._reason(output)}")
            error.add_note("".join(output[-20:]))  # the full output, for readers of the traceback
            raise error

    def stop(self) -> None:
        """Kill the worker processes; `run` then raises KernelError."""
        self._stopped = True
        for process in self._running:
            process.kill()

    def _started(self) -> TextIO:
        """Start the processes; returns the stream of their output, which ends when the last process ends."""
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
        """Send the next kernel name to a process, or close its input."""
        assert process.stdin
        with suppress(BrokenPipeError):  # the process has failed; its output and exit code say why
            if self._waiting:
                name = self._waiting.pop()
                self._owners[name] = process
                process.stdin.write(f"{name}\n")
                process.stdin.flush()
            else:
                process.stdin.close()

    def _end(self) -> None:
        """Kill remaining processes, and remove the unfinished files of killed ones."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdin:
                with suppress(BrokenPipeError):
                    process.stdin.close()
            if process.returncode:
                cache_files.remove_unfinished(self._folder, process.pid)

    def _reason(self, output: list[str]) -> str:
        """The last line of output that is not the name of a finished kernel."""
        reasons = [line for line in map(str.strip, output) if line and line not in self._names]
        return reasons[-1] if reasons else "the process ended without any output"


def _brevity(name: str) -> tuple[int, str]:
    """A sort key that orders kernels by compile time, slowest first."""
    module = name.rpartition(".")[0]
    return LONG.index(module) if module in LONG else len(LONG), name
