"""The thread pool: threads that run one program together, spin between kernels and park between steps.

Thread 0 is the caller of `run`; only one thread may call it at a time. A worker that finds no work for a while returns
from machine code and waits on a semaphore, so an idle model uses no CPU time.
"""

from __future__ import annotations

import ctypes
import sys
import threading

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import UsageError
from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile.kernel_cache import KernelCache
from ternrun.runtime.cpu.memory import address, aligned
from ternrun.runtime.cpu.program.program import Records

PROGRAM, COUNT, STATE, YIELD, PROFILE, STOP = (
    layout.THREAD_POOL[name] // 8 for name in ("program", "count", "state", "yield", "profile", "stop")
)
KERNELS = ("step.run", "step.launch", "step.work")


class ThreadPool:
    """`threads` threads that run programs of one kernel cache."""

    def __init__(self, kernels: KernelCache, threads: int) -> None:
        if not 1 <= threads <= layout.MAX_THREADS:
            raise UsageError(f"threads must be from 1 to {layout.MAX_THREADS}, not {threads}")
        self.threads = threads
        kernels.require(KERNELS)
        self._run_program, self._launch, self._work = (kernels.function(name) for name in KERNELS)
        self._memory = aligned(layout.THREAD_POOL_BYTES)
        self._base = address(self._memory)
        self._cells = self._memory[: layout.THREAD_POOL_BYTES].view(np.int64).data
        self._cells[YIELD] = _yield_address()
        self._wake = [threading.Semaphore(0) for _ in range(threads)]
        self._workers: list[threading.Thread] = []
        try:
            for i in range(1, threads):
                worker = threading.Thread(target=self._worker, args=(i,), daemon=True)
                worker.start()
                self._workers.append(worker)
        except RuntimeError:  # a container's limit of processes, which includes threads
            self.close()
            raise UsageError(f"this system does not let {threads} threads run: ask for fewer") from None

    def run(self, records: Records, state: int, profile: NDArray[np.int64] | None = None) -> None:
        """Run a program's records; returns when all calls are done. `profile` accumulates the cycles of each call.

        Raises UsageError after `close`.
        """
        cells = self._cells
        if cells[STOP]:
            raise UsageError("the model is closed")
        cells[PROGRAM], cells[COUNT], cells[STATE] = records.base, records.calls, state
        cells[PROFILE] = 0 if profile is None else address(profile)
        if parked := self._run_program(self._base, 0, self.threads):
            self._unpark(parked)
            self._run_program(self._base, 1, self.threads)

    def close(self) -> None:
        """Stop and join the workers."""
        if not self._cells[STOP]:
            self._cells[STOP] = 1
            self._launch(self._base, 0, self.threads)
            for wake in self._wake:  # all of them: a run that Ctrl-C interrupted may not have woken its workers
                wake.release()
            for worker in self._workers:
                worker.join()

    def _unpark(self, parked: int) -> None:
        """Wake the workers whose bit is set."""
        for i in range(1, self.threads):
            if parked >> i & 1:
                self._wake[i].release()

    def _worker(self, tid: int) -> None:
        """The main function of a worker thread."""
        while self._work(self._base, tid, self.threads):
            self._wake[tid].acquire()


def _yield_address() -> int:
    """The address of the system's `int yield(void)`."""
    if sys.platform == "win32":
        function = ctypes.windll.kernel32.SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
