"""One thread that runs one engine. Requests may come from any thread, and no caller's Ctrl-C can interrupt a step.

The API passes a queue's `put` as the receiver; a server passes its event loop's `call_soon_threadsafe`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

from ternrun.errors import UsageError
from ternrun.runtime.engine.engine import Engine
from ternrun.runtime.engine.request import FinishReason, Request, StepOutput

Receive = Callable[[StepOutput], None]
Result = TypeVar("Result")


class Ticket:
    """A submitted request, to be passed to `Driver.abort`."""

    def __init__(self, request: Request, receive: Receive) -> None:
        self.request = request
        self.receive = receive
        self.id = -1  # the engine's, once the driver's thread has added it


class Outputs:
    """Iterates over the outputs of one request. Closing it ends the request.

    Raises the error that ended the request, if any.
    """

    def __init__(self, driver: Driver, request: Request) -> None:
        self._ended = True  # until there is something to end
        self._driver = driver
        self._queue: SimpleQueue[StepOutput] = SimpleQueue()
        self._ticket = driver.submit(request, self._queue.put)
        self._ended = False

    def __iter__(self) -> Iterator[StepOutput]:
        return self

    def __next__(self) -> StepOutput:
        if self._ended:
            raise StopIteration
        output = self._queue.get()
        self._ended = output.finish_reason is not None
        if output.error:
            raise output.error
        return output

    def close(self) -> None:
        """End the request if it has not ended."""
        if not self._ended:
            self._ended = True
            self._driver.abort(self._ticket)

    def __del__(self) -> None:
        self.close()


class Driver:
    """Runs an engine, which nobody else may use afterwards. Every submitted request gets a last output in any case."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._tickets: dict[int, Ticket] = {}
        self._open = True
        # Refusing after `close` and queueing before it exclude each other. Reentrant, because the garbage collector may
        # close forgotten outputs at any moment, also in the middle of `_send`.
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._run, name="ternrun-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, receive: Receive) -> Ticket:
        """Queue a request. The driver's thread calls `receive` with each output; it must return at once.

        Raises UsageError or ContextError for a request that cannot run, and UsageError after `close`.
        """
        self.engine.check(request)
        ticket = Ticket(request, receive)
        self._send(lambda: self._add(ticket))
        return ticket

    def outputs(self, request: Request) -> Outputs:
        """Queue a request and iterate over its outputs. Raises as `submit` does."""
        return Outputs(self, request)

    def abort(self, ticket: Ticket) -> None:
        """End a request before the next step. The reason of its last output is 'abort' unless it ended before."""
        with suppress(UsageError):  # closed: it has ended already
            self._send(lambda: self._end(ticket, "abort"))

    def call(self, work: Callable[[Engine], Result]) -> Result:
        """Run `work` in the driver's thread between two steps. Returns or raises what `work` does.

        Raises UsageError after `close`.
        """
        future: Future[Result] = Future()

        def run() -> None:
            try:
                future.set_result(work(self.engine))
            except Exception as error:  # the caller's
                future.set_exception(error)

        self._send(run)
        return future.result()

    def close(self) -> None:
        """Abort all requests and stop the thread. Returns when it has ended. A second call does nothing."""
        with self._lock:
            self._open = False
        self._inbox.put(lambda: None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _send(self, command: Callable[[], None]) -> None:
        with self._lock:
            if not self._open:
                raise UsageError("the model is closed")
            if not self._thread.is_alive():  # a fork has no copy of the thread, so nobody would answer
                raise UsageError("the model's thread is not in this process: a process that was forked loads its own")
            self._inbox.put(command)

    def _run(self) -> None:
        while self._open:
            self._read_inbox(wait=not self.engine.has_work)
            self._step()
        self._read_inbox(wait=False)
        for ticket in list(self._tickets.values()):
            self._end(ticket, "abort")

    def _read_inbox(self, wait: bool) -> None:
        while wait or not self._inbox.empty():
            self._inbox.get()()
            wait = False

    def _step(self) -> None:
        try:
            outputs = self.engine.step()
        except Exception as error:  # callers must get any error, or they would wait forever
            for ticket in list(self._tickets.values()):
                self._end(ticket, "error", error)
            return
        for output in outputs:
            ticket = self._tickets.pop(output.id) if output.finish_reason else self._tickets[output.id]
            self._hand(ticket, output)

    def _add(self, ticket: Ticket) -> None:
        try:
            ticket.id = self.engine.add(ticket.request)
        except Exception as error:  # ids that were changed since they were checked, memory that ran out
            self._hand(ticket, StepOutput(ticket.id, finish_reason="error", error=error))
        else:
            self._tickets[ticket.id] = ticket

    def _end(self, ticket: Ticket, reason: FinishReason, error: Exception | None = None) -> None:
        if ticket.id in self._tickets:
            del self._tickets[ticket.id]
            self.engine.abort(ticket.id)
            self._hand(ticket, StepOutput(ticket.id, finish_reason=reason, error=error))

    def _hand(self, ticket: Ticket, output: StepOutput) -> None:
        try:
            ticket.receive(output)
        except Exception:  # the receiver is gone (a closed event loop)
            self._tickets.pop(output.id, None)
            self.engine.abort(output.id)
