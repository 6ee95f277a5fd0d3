"""The text of a request while the model makes it, and the complete record afterwards."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from ternrun.loader.tokenizers.tokenizer import Tokenizer
from ternrun.runtime.engine.driver import Driver
from ternrun.runtime.engine.request import FinishReason, Request, StepOutput
from ternrun.runtime.sampling.logprobs import TokenLogprobs
from ternrun.text import StopMatcher


class CompletingModel(Protocol):
    """What a completion needs of a loaded model (`ternrun.api.Model`)."""

    name: str
    load_s: float
    backend: str
    backend_reason: str
    driver: Driver

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to token ids and back."""
        ...


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds, and the number of tokens they were spent on."""

    load_s: float  # of the model, once
    first_token_s: float  # from the call to the first token
    prefill_tokens: int  # prompt tokens that were computed: those found in the cache are not counted
    prefill_s: float
    decode_tokens: int  # tokens after the first
    decode_s: float

    @property
    def prefill_tokens_per_s(self) -> float:
        """Prompt tokens per second; 0 if no time was measured."""
        return self.prefill_tokens / self.prefill_s if self.prefill_s else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        """Generated tokens per second; 0 if no time was measured."""
        return self.decode_tokens / self.decode_s if self.decode_s else 0.0


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer. `dataclasses.asdict` gives the object that `ternrun complete --json` prints."""

    model: str
    prompt_ids: list[int]
    ids: list[int]  # as generated: without the end token, but with all tokens of a stop string
    text: str  # ends before the stop string, or behind it with `include_stop`
    finish_reason: FinishReason  # "stop": end token or stop string; "length": max_tokens or context; "abort"
    logprobs: list[TokenLogprobs] | None  # one per id, of the raw distribution; None unless asked for
    timings: Timings
    peak_rss_bytes: int
    backend: str
    backend_reason: str


class Stream:
    """Iterates over the pieces of a text while the model makes it. Closing it, or leaving its `with` block, ends the
    request.

    Threads that iterate together get each piece once. `completion` is the record so far; its finish_reason is "abort"
    until the end.
    """

    def __init__(self, model: CompletingModel, request: Request, called: float) -> None:
        self._model = model
        self._prompt_ids, params = list(request.ids), request.params
        self._outputs = model.driver.outputs(request)
        self._decoder = model.tokenizer.stream(request.ids)
        self._stops = StopMatcher(params.stop, least=params.min_tokens, include=params.include_stop)
        self._ids: list[int] = []
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprobs] | None = None if params.logprobs is None else []
        self._reason: FinishReason | None = None
        self._called, self._submitted = called, time.perf_counter()
        self._first = self._last = 0.0  # when the first and the last token came
        self._first_tokens = 0  # that came with the first output
        self._cached = 0
        self._taking = threading.Lock()  # two that wait for outputs would both wait for the last one

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        with self._taking:
            while self._reason is None:
                piece = self._take(next(self._outputs))
                if piece:
                    self._pieces.append(piece)
                    return piece
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the request if it has not ended."""
        if self._reason is None:
            self._reason = "abort"
            self._outputs.close()

    @property
    def completion(self) -> Completion:
        """The record so far."""
        first = self._first or time.perf_counter()
        return Completion(
            model=self._model.name,
            prompt_ids=self._prompt_ids,
            ids=list(self._ids),
            text="".join(self._pieces),
            finish_reason=self._reason or "abort",
            logprobs=None if self._logprobs is None else list(self._logprobs),
            timings=Timings(
                load_s=self._model.load_s,
                first_token_s=first - self._called,
                prefill_tokens=len(self._prompt_ids) - self._cached,
                prefill_s=first - self._submitted,
                decode_tokens=max(len(self._ids) - self._first_tokens, 0),
                decode_s=self._last - self._first,
            ),
            peak_rss_bytes=peak_rss_bytes(),
            backend=self._model.backend,
            backend_reason=self._model.backend_reason,
        )

    def _take(self, output: StepOutput) -> str:
        """The text that this output makes final."""
        self._clock(output)
        text = ""
        for index, token in enumerate(output.tokens):
            self._ids.append(token)
            if self._logprobs is not None:
                self._logprobs.append(output.logprobs[index])
            certain, stopped = self._stops.push(self._decoder.push(token))
            text += certain
            if stopped:
                self._outputs.close()
                self._reason = "stop"
                return text
        if output.finish_reason:
            certain, stopped = self._stops.push(self._decoder.flush())
            text += certain if stopped else certain + self._stops.flush()
            self._reason = "stop" if stopped else output.finish_reason
        return text

    def _clock(self, output: StepOutput) -> None:
        if not self._first:
            self._first, self._first_tokens, self._cached = output.made, len(output.tokens), output.cached_tokens
        if output.tokens:
            self._last = output.made


def peak_rss_bytes() -> int:
    """The largest memory of this process so far, in bytes; 0 if the system does not report it."""
    if sys.platform == "linux":  # getrusage would count the process that started this one, too
        status = Path("/proc/self/status").read_bytes()
        return int(status.partition(b"VmHWM:")[2].split()[0]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
