"""The state that all requests to one model share: the model, admission, and metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aiohttp import web

from ternrun.errors import MissingExtra, TemplateError, UsageError
from ternrun.runtime.engine.counters import Counters
from ternrun.server.generation.metrics import Metrics
from ternrun.server.generation.slots import Slots
from ternrun.server.http.errors import ApiError, shutting_down
from ternrun.server.http.json_body import SIZE
from ternrun.server.settings import ServerConfig

if TYPE_CHECKING:
    from ternrun.api import Model
    from ternrun.grammar.compiler import Kind
    from ternrun.runtime.sampling.constraint import Constraint

LARGE = 1 << 16  # bytes of a request; to read as many takes half a second at the worst
MAX_LONG = 64
UNKNOWN = "qzxjkvw"  # no vocabulary has it whole: tables that are made when first needed are made before anyone waits
RETRY_AFTER = 1  # seconds; places in the queue come free all the time

Result = TypeVar("Result")


class Answering(Protocol):
    """The answers to one request, which a closing server can end."""

    def end(self) -> None:
        """End the answers: whoever waits for them gets the error of a closing server."""


class Service:
    """One model on the event loop. Only `_open` runs in another thread."""

    def __init__(self, config: ServerConfig, open_model: Callable[[], Model], metrics: Metrics, alias: str) -> None:
        self.config = config
        self.started = int(time.time())
        self.draining = False
        self.sequences = 0  # admitted, and not ended
        self.answers: set[Answering] = set()  # of requests under way
        self.metrics = metrics
        self.slots = Slots(0)  # more where they may be saved
        self._alias = alias  # empty: it goes by its file's name
        self._open_model = open_model
        self._model: Model | None = None
        self._threads = ThreadPoolExecutor(2, "ternrun-aside")
        self._long = 0  # pieces of work there, those that wait included

    async def load(self) -> None:
        """Load the model beside the event loop. Raises what loading raises."""
        self._model = await asyncio.to_thread(self._open)
        if self.config.slot_save_path:
            self.slots = Slots(self._model.driver.engine.max_batch)

    def _open(self) -> Model:
        model = self._open_model()
        model.tokenizer.encode(UNKNOWN)
        with suppress(TemplateError):  # requests that need it get the reason
            _ = model.chat_template
        return model

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Values of fields that requests omit: the server's, else those that the model's file recommends."""
        return {**(self._model.sampling if self._model else {}), **self.config.defaults}

    @property
    def model(self) -> Model:
        """The model. Raises ApiError before it is loaded and while the server closes."""
        if self.draining:
            raise shutting_down()
        if self._model is None:
            raise ApiError("Loading model", status=503, code=503, headers={"Retry-After": str(RETRY_AFTER)})
        return self._model

    @property
    def name(self) -> str:
        """The name of the model in answers, also while the server closes."""
        return self._alias or (self._model.id if self._model else "")

    async def compile(self, kind: Kind, text: str, param: str) -> Callable[[], Constraint]:
        """Compile a grammar to the start of a constraint. Raises ApiError, which names the field `param`."""
        try:
            return (await self.aside(partial(self.model.grammars.compile, kind, text))).start
        except MissingExtra as error:
            raise ApiError(f"{param}: {error}", param=param, code="unsupported") from None
        except UsageError as error:
            raise ApiError(f"{param}: {error}", param=param) from None

    async def read(self, request: web.Request, work: Callable[[], Result]) -> Result:
        """Run work that grows with the texts of a request beside the event loop.

        Large requests use threads of their own, so that others are not delayed. Raises ApiError, and what the work
        raises.
        """
        return await (self.aside(work) if request[SIZE] > LARGE else asyncio.to_thread(work))

    async def aside(self, work: Callable[[], Result]) -> Result:
        """Run work that may take seconds in separate threads. No other request waits for it.

        Raises ApiError, and what the work raises.
        """
        if self._long >= MAX_LONG:
            self.metrics.refused.inc()
            raise ApiError(
                "too many long requests and grammars are being read: try again",
                status=429, code="queue_full", headers={"Retry-After": str(RETRY_AFTER)},
            )  # fmt: skip
        self._long += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, work)
        finally:
            self._long -= 1

    @contextmanager
    def admit(self, count: int) -> Iterator[None]:
        """Reserve places for `count` sequences of a request. Raises ApiError if the queue is full.

        At most as many places are counted as can run together; the scheduler keeps the rest from crowding out others.
        """
        batch = self.model.driver.engine.max_batch
        places, count = batch + self.config.queue, min(count, batch)
        if self.sequences and self.sequences + count > places:
            self.metrics.refused.inc()
            raise ApiError(
                f"{self.sequences} sequences run or wait already, and this server takes {places}: try again",
                status=429, code="queue_full", headers={"Retry-After": str(RETRY_AFTER)},
            )  # fmt: skip
        self.sequences += count
        try:
            yield
        finally:
            self.sequences -= count

    async def close(self) -> None:
        """Wait up to `drain` seconds for running requests, end the others, and close the model."""
        self.draining = True
        if await self._idle(self.config.drain):
            for answers in tuple(self.answers):
                answers.end()
            await self._idle(5)
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._model is not None:
            await asyncio.to_thread(self._model.close)

    async def _idle(self, seconds: float) -> int:
        """Wait until no request runs. Returns the number of running requests when the time is up."""
        end = time.monotonic() + seconds
        while self.answers and time.monotonic() < end:
            await asyncio.sleep(0.02)
        return len(self.answers)

    @property
    def load_now(self) -> tuple[int, int]:
        """The numbers of running and waiting sequences."""
        return self._model.driver.engine.load if self._model else (0, 0)

    @property
    def counters(self) -> Counters:
        """The engine's counters."""
        return self._model.driver.engine.counters if self._model else Counters()
