"""Submits the sequences of one HTTP request and carries their outputs to the event loop.

The engine never waits for a client: outputs that nobody has read are merged into one update.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from ternrun.runtime.engine.context_shift import ContextShift
from ternrun.runtime.engine.request import Request, StepOutput
from ternrun.server.generation.answer import Answer, Update
from ternrun.server.http.errors import ApiError, shutting_down

if TYPE_CHECKING:
    from ternrun.server.generation.service import Service
    from ternrun.server.settings import ServerConfig

MAX_SHIFTED = 1 << 17  # tokens of an answer that no context ends
MAX_NUMBERS = 1 << 21  # log-probabilities of one answer, all its sequences together
NOTHING: Mapping[int, str] = {}


class Answers:
    """All sequences of one request. Iterate over `updates`. Made by `submit_requests`."""

    def __init__(self, service: Service, requests: Sequence[Request], shown: Mapping[int, str]) -> None:
        self._service = service
        self.model = service.model  # the service has none any more while the server waits for its last answers
        self._driver = self.model.driver
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[tuple[int, StepOutput]] = deque()
        self._bell = asyncio.Event()
        self._rung = False
        self._ended_early = False
        self.began = time.perf_counter()
        self.all = [Answer(self.model, request, shown) for request in requests]

    def submit(self) -> None:
        """Submit all requests. Raises UsageError, ContextError."""
        for index, answer in enumerate(self.all):
            answer.ticket = self._driver.submit(answer.request, self._receiver(index))

    async def updates(self) -> AsyncIterator[tuple[int, Update]]:
        """Iterate over (index, update) until all answers have ended.

        Raises the error that ends one of them, and TimeoutError after the deadline.
        """
        limit = self._service.config.timeout
        deadline = self._loop.time() + limit if limit else None
        while not all(answer.ended for answer in self.all):
            async with asyncio.timeout_at(deadline):
                await self._bell.wait()
            self._bell.clear()
            self._rung = False
            for index, update in self._merge().items():
                yield index, update

    def cut(self, index: int) -> Update:
        """End one sequence early."""
        answer = self.all[index]
        if answer.ticket:
            self._driver.abort(answer.ticket)
        return answer.cut()

    def end(self) -> None:
        """End the iteration with the error of a closing server."""
        self._ended_early = True
        self._bell.set()

    def close(self) -> None:
        """Abort sequences that have not ended, so that their places are free before the next step."""
        for answer in self.all:
            if answer.ticket and not answer.ended:
                self._driver.abort(answer.ticket)
            answer.ticket = None  # it knows of us: a grammar's process would live until such cycles are collected

    @property
    def usage(self) -> tuple[int, int, int]:
        """Numbers of prompt tokens (each prompt once), generated tokens, and cached prompt tokens."""
        prompts = {id(a.request.ids): a for a in reversed(self.all)}.values()
        return (
            sum(len(a.request.ids) for a in prompts),
            sum(a.generated for a in self.all),
            sum(a.cached for a in prompts),
        )

    @property
    def numbers(self) -> int:
        """The number of log-probabilities in the answer so far."""
        return sum(_numbers(a.request, a.generated) for a in self.all)

    def _receiver(self, index: int) -> Callable[[StepOutput], None]:
        def receive(output: StepOutput) -> None:  # in the engine's thread
            self._inbox.append((index, output))
            if not self._rung:
                self._rung = True
                self._loop.call_soon_threadsafe(self._bell.set)

        return receive

    def _merge(self) -> dict[int, Update]:
        if self._ended_early:
            raise shutting_down()
        updates: dict[int, Update] = {}
        while self._inbox:
            index, output = self._inbox.popleft()
            answer = self.all[index]
            before = answer.generated
            answer.take(output, updates.setdefault(index, Update()))
            self._clock(answer, output.made, answer.generated - before)
            if answer.ended and output.finish_reason is None and answer.ticket:
                self._driver.abort(answer.ticket)  # a stop string, of which the engine knows nothing
        return updates

    def _clock(self, answer: Answer, made: float, tokens: int) -> None:
        if not tokens:
            return
        metrics = self._service.metrics
        if answer.first:
            metrics.token_s.observe((made - answer.last) / tokens)
            metrics.totals.decode_s += made - answer.last
        else:
            answer.first = made
            metrics.first_token_s.observe(made - self.began)
            metrics.totals.prompt_s += made - self.began
        answer.last = made


def _numbers(request: Request, generated: int) -> int:
    """The number of log-probabilities for `generated` tokens, and for the prompt if it is scored."""
    params, scored = request.params, request.prompt_logprobs
    of_prompt = 0 if scored is None else len(request.ids) * (1 + scored)
    return of_prompt + (0 if params.logprobs is None else generated * (1 + params.logprobs))


def _bounded(request: Request, config: ServerConfig) -> Request:
    """The request with the server's limit on the length of an answer."""
    shift, params = request.shift or ContextShift() if config.context_shift else None, request.params
    most = config.max_tokens or (MAX_SHIFTED if shift else params.max_tokens)
    if params.max_tokens > most:
        params = dataclasses.replace(params, max_tokens=most)
    return dataclasses.replace(request, params=params, shift=shift)


def _room(request: Request, context: int) -> int:
    """The largest number of tokens that can be generated."""
    most = request.params.max_tokens
    return most if request.shift else min(most, context - len(request.ids))


@contextmanager
def submit_requests(
    service: Service, requests: Sequence[Request], told: TokenCounts, shown: Mapping[int, str] = NOTHING, slot: int = -1
) -> Iterator[Answers]:
    """Submit requests to the engine, and clean up when the block ends. Raises ApiError, UsageError, ContextError.

    `shown`: control tokens that appear in the text, and their text. `slot`: the slot to run in; -1: any.
    """
    engine = service.model.driver.engine
    requests = [_bounded(request, service.config) for request in requests]
    for request in requests:  # before anything runs, so that a list of prompts is refused as a whole
        engine.check(request)
    most = sum(_numbers(r, _room(r, engine.context)) for r in requests)
    if most > MAX_NUMBERS:
        message = f"logprobs: that may come to {most} numbers, and one answer may have {MAX_NUMBERS}"
        raise ApiError(message, param="logprobs")
    if len(requests) > 1:
        group = object()
        requests = [dataclasses.replace(request, group=group) for request in requests]
    with service.admit(len(requests)):
        answers = Answers(service, requests, shown)
        kept = [answer for answer in answers.all if not answer.request.pooling]
        service.answers.add(answers)
        try:
            for answer in kept:
                answer.slot = service.slots.pick(answer.request.ids, slot)
            answers.submit()
            yield answers
        finally:
            for answer in kept:
                service.slots.note(answer.slot, answer.request.ids, answer.said)
            service.answers.discard(answers)
            answers.close()
            prompt, generated, cached = answers.usage
            told |= {"prompt_tokens": prompt, "completion_tokens": generated, "cached_tokens": cached}
            service.metrics.totals.add(prompt, generated, cached)


TokenCounts = dict[str, int]  # what a handler adds to its line in the log: counts of tokens
TOKEN_COUNTS: web.RequestKey[TokenCounts] = web.RequestKey("told", dict)
