"""The process in which chat templates run. Started with `python -m`; it imports jinja2 and little else.

A template may ask for anything. The operating system ends this process when a template takes too much processor time,
and refuses it memory beyond a limit; neither depends on what the interpreter is busy with. The process also ends when
the other end of its pipe is closed.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import RawIOBase
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template

from ternrun.loader.chat.environment import RefusedMessagesError, make_environment
from ternrun.loader.chat.wire import FAULT, LAST_FAULT, READY, TEXT, UNKNOWN, receive, send

COMPILE_S, RENDER_S = 0.3, 0.3  # of processor time on a machine of today; the largest in use takes 0.15 to compile
BYTE_S = 5e-8  # more for each byte of the messages; gemma-4's template takes 0.15 for 2 MB in 200 messages
WALL_FACTOR = 20  # a busy machine may take this much longer by the clock
MEMORY = 512 << 20  # bytes beyond those of the idle process
MAX_OUTPUT = 1 << 24  # characters
MAX_TEMPLATES = 8  # compiled ones that are kept
MAX_REASON = 200  # characters

HAS_TIMERS = hasattr(signal, "setitimer")  # Windows has none

# compiled to see how slow the machine is
_SAMPLE = "{% for m in messages %}{% if loop.first %}{{ '<|' + m['role'] | trim ~ m.content }}{% endif %}{% endfor %}"
_SAMPLE_S, _MAX_SLOWNESS = 0.004, 8.0


class TooMuchOutputError(Exception):
    """The rendered text is longer than MAX_OUTPUT."""


def main() -> NoReturn:
    """Answer requests on standard input until it is closed."""
    requests, replies = os.fdopen(0, "rb", buffering=0), os.fdopen(1, "wb", buffering=0)
    _ignore_signals()
    _limit_memory()
    with suppress(EOFError, OSError):  # the other end is gone
        serve(requests, replies)
    os._exit(0)


def serve(requests: RawIOBase, replies: RawIOBase) -> None:
    """Say that the process is ready, then answer each request; returns after a LAST_FAULT. Raises EOFError, OSError."""
    renderer = Renderer()
    gc.freeze()  # a collection then looks only at what templates have left
    send(replies, READY)
    while True:
        _, content = receive(requests)
        kind, text = renderer.answer(*pickle.loads(content))
        send(replies, kind, text.encode("utf-8", "surrogatepass"))
        if kind == LAST_FAULT:
            return
        with renderer.limited(COMPILE_S):
            gc.collect()  # one template's garbage must not count against the next


class Renderer:
    """Compiles templates and renders them, within limits."""

    def __init__(self) -> None:
        self._environment = make_environment()
        self._templates: dict[str, Template] = {}  # by key, the oldest first
        self._slowness = min(_MAX_SLOWNESS, max(1.0, min(self._sample_s() for _ in range(2)) / _SAMPLE_S))

    def answer(self, key: str, source: str | None, names: bytes | None) -> tuple[bytes, str]:
        """The kind and text of the reply to one request; `wire` says what the three are."""
        seconds = COMPILE_S if names is None else RENDER_S + BYTE_S * len(names)
        with self.limited(seconds):  # what an error says can take long to write, too
            try:
                return self._answer(key, source, names)
            except MemoryError:
                return LAST_FAULT, "takes too much memory"
            except RefusedMessagesError as e:
                return FAULT, f"refuses these messages: {_one_line(e)}"
            except TooMuchOutputError:
                return FAULT, f"writes more than {MAX_OUTPUT} characters"
            except Exception as e:  # a template may raise anything that Python can
                fault = "is damaged" if names is None else "does not fit these messages"
                if isinstance(e, RecursionError):
                    return FAULT, f"{fault}: it is nested too deeply"
                return FAULT, f"{fault}: {type(e).__name__}: {_one_line(e)}"

    def _answer(self, key: str, source: str | None, names: bytes | None) -> tuple[bytes, str]:
        if source is not None:
            template = self._environment.from_string(source)
            if len(self._templates) >= MAX_TEMPLATES:
                del self._templates[next(iter(self._templates))]
            self._templates[key] = template
        if names is None:
            return READY, ""
        if key not in self._templates:
            return UNKNOWN, ""
        return TEXT, _render(self._templates[key], pickle.loads(names))

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """End this process if the block takes longer than that on a machine of today, or as much longer as this one is
        slower. The process cannot catch it: C code may not look for signals for a long time."""
        _set_timers(seconds * self._slowness)
        try:
            yield
        finally:
            _set_timers(0)

    def _sample_s(self) -> float:
        start = time.process_time()
        self._environment.from_string(_SAMPLE)
        return time.process_time() - start


def _set_timers(seconds: float) -> None:
    if HAS_TIMERS:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, seconds * WALL_FACTOR)
    elif seconds:
        faulthandler.dump_traceback_later(2 * seconds, exit=True)
    else:
        faulthandler.cancel_dump_traceback_later()


def _render(template: Template, names: Mapping[str, Any]) -> str:
    pieces, size = [], 0
    for piece in template.generate(names):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_OUTPUT:
            raise TooMuchOutputError
    return "".join(pieces)


def _one_line(error: Exception) -> str:
    return " ".join(str(error)[: 2 * MAX_REASON].split())[:MAX_REASON]


def _ignore_signals() -> None:
    """The process that started this one decides when it ends, by closing the pipe; timers end it in any case."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if HAS_TIMERS:
        for timer in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(timer, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _limit_memory() -> None:
    """Where the system can. Without /proc the limit counts from zero, which is a little stricter."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    taken = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    with suppress(ValueError, OSError):  # macOS refuses limits below what is mapped already
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))


if __name__ == "__main__":
    main()
