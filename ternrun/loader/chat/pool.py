"""The processes that render chat templates, as their parent sees them: started when needed, kept warm, replaced."""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import threading
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import cast

from ternrun.errors import TemplateError
from ternrun.loader.chat.wire import FAULT, LAST_FAULT, READY, REQUEST, UNKNOWN, receive, send

MAX_FAULTS = 64  # sources whose fault is remembered
MAX_WORKERS = min(4, max(2, os.cpu_count() or 2))  # renders at the same time; the usual one takes under 1 ms
_MODULE = "ternrun.loader.chat.worker"
_ROOT = str(Path(__file__).parents[3])  # the folder that holds this ternrun, whatever else is installed


class Worker:
    """One process. `ask` is for one thread at a time. Raises TemplateError if it does not start."""

    def __init__(self) -> None:
        # `-S` leaves out `site`, which takes longer than all imports: the paths that it found are handed on
        paths = os.pathsep.join([_ROOT, *filter(None, sys.path)])
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-S", "-m", _MODULE], env=os.environ | {"PYTHONPATH": paths}, bufsize=0,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as e:
            raise TemplateError(f"no process for chat templates could be started: {e}") from e
        self._requests = cast("RawIOBase", self._process.stdin)
        self._replies = cast("RawIOBase", self._process.stdout)
        try:
            receive(self._replies)
        except BaseException as e:
            self.close()
            if isinstance(e, (EOFError, OSError)):
                raise TemplateError("the process for chat templates did not start") from e
            raise

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, key: str, source: str, names: bytes | None) -> str:
        """Render the template of `key` with pickled `names`; compile `source` if they are None.

        Raises TemplateError, in one sentence, for whatever is wrong and for what takes too much time or memory.
        """
        kind, content = self._exchange(key, source if names is None else None, names)
        if kind == UNKNOWN:
            kind, content = self._exchange(key, source, None)
            if kind == READY:
                kind, content = self._exchange(key, None, names)
        if kind == LAST_FAULT:
            self.close()
        text = content.decode("utf-8", "surrogatepass")
        if kind in (FAULT, LAST_FAULT):
            raise TemplateError(f"the chat template {text}")
        return text

    def _exchange(self, *request: object) -> tuple[bytes, bytes]:
        try:
            send(self._requests, REQUEST, pickle.dumps(request))
            return receive(self._replies)
        except (EOFError, OSError):
            self.close()
            return FAULT, b"takes more time or memory than is allowed"
        except BaseException:  # Ctrl-C: the next question must not be answered by this reply
            self.close()
            raise

    def close(self) -> None:
        """End the process. May be called twice."""
        self._process.kill()
        self._process.wait()
        self.abandon()

    def abandon(self) -> None:
        """Close the pipes, at which the process ends by itself."""
        with suppress(OSError):
            self._requests.close()
            self._replies.close()


class WorkerPool:
    """At most MAX_WORKERS processes, shared by all templates. Safe to use from several threads."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(MAX_WORKERS)
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._faults: dict[str, str] = {}  # by key, oldest first
        self._lock = threading.Lock()

    def compile(self, key: str, source: str) -> None:
        """Raises TemplateError for a source that is damaged or takes too much; at once if it has been tried before."""
        if (fault := self._faults.get(key)) is not None:
            raise TemplateError(fault)
        self.render(key, source, None)

    def render(self, key: str, source: str, names: bytes | None) -> str:
        """See `Worker.ask`."""
        with self._slots:
            worker = self._take()
            try:
                return worker.ask(key, source, names)
            except TemplateError as e:
                if names is None:
                    self._remember(key, str(e))
                raise
            finally:
                if worker.is_alive:
                    self._idle.append(worker)
                else:
                    self._drop(worker)

    def _remember(self, key: str, fault: str) -> None:
        """Keep the fault of a source, in place of the oldest one if there are too many."""
        with self._lock:
            while len(self._faults) >= MAX_FAULTS:
                del self._faults[next(iter(self._faults))]
            self._faults[key] = fault

    def close(self) -> None:
        """End all processes, also those that are busy: their templates fail."""
        for worker in list(self._all):
            worker.close()

    def after_fork(self) -> None:
        """Leave the processes to the parent, in a child that was forked: both would read each other's replies."""
        for worker in self._all:
            worker.abandon()
        self.__init__()  # type: ignore[misc]

    def _take(self) -> Worker:
        while self._idle:
            worker = self._idle.pop()  # lists are safe between threads
            if worker.is_alive:
                return worker
            self._drop(worker)
        worker = Worker()
        self._all.add(worker)
        return worker

    def _drop(self, worker: Worker) -> None:
        worker.close()
        self._all.discard(worker)


POOL = WorkerPool()
atexit.register(POOL.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.after_fork)
