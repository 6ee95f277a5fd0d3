"""One sequence of a request: the engine's outputs as text, up to a stop string."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.engine.request import FinishReason, Request, StepOutput
from ternrun.runtime.sampling.logprobs import TokenLogprobs
from ternrun.server.http.errors import shutting_down
from ternrun.text import StopMatcher

if TYPE_CHECKING:
    from ternrun.api import Model
    from ternrun.runtime.engine.driver import Ticket


@dataclass(frozen=True, slots=True)
class Token:
    """A generated token. `offset` is the number of characters of this answer before it."""

    id: int
    offset: int
    logprobs: TokenLogprobs | None


@dataclass(slots=True)
class Update:
    """What was added to an answer since the previous update."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    prompt: list[TokenLogprobs] = field(default_factory=list)  # of the next prompt tokens
    processed: list[int] = field(default_factory=list)  # prompt tokens done after each step, where it was asked for
    reason: FinishReason | None = None


class Answer:
    """One sequence of a request: the engine's outputs as text, up to a stop string."""

    def __init__(self, model: Model, request: Request, shown: Mapping[int, str]) -> None:
        self.request = request
        self.ticket: Ticket | None = None
        self.slot = -1  # where it runs, where slots are kept
        self.said: list[int] = []  # tokens, those of a stop string included, the end token not
        self.cached = 0
        self.processed = -1  # prompt tokens told of as done
        self.stopping_word = ""
        self.multiline = False  # it has a line break
        self.reason: FinishReason | None = None
        self.embedding: NDArray[np.float32] | None = None
        self.end: Token | None = None  # the end token, where log-probabilities were asked for
        self.first = self.last = 0.0  # when its first and its last token came
        self._decoder = model.tokenizer.stream(request.ids)
        self._shown = shown
        params = request.params
        self._stops = StopMatcher(params.stop, least=params.min_tokens, include=params.include_stop)
        self._raw = ""  # decoded, and not certain yet
        self._certain = 0  # characters handed out
        self._held: list[Token] = []  # their text is not certain yet

    @property
    def generated(self) -> int:
        """The number of generated tokens."""
        return len(self.said)

    @property
    def ended(self) -> bool:
        """Whether the answer is complete."""
        return self.reason is not None

    def take(self, output: StepOutput, update: Update) -> None:
        """Add an output of the engine to an update. Raises the error that ended the sequence, if any."""
        if self.ended:
            return
        if output.error:
            raise output.error
        if output.finish_reason == "abort":
            raise shutting_down()
        update.prompt += output.prompt_logprobs
        self.cached = max(self.cached, output.cached_tokens)
        self.embedding = output.embedding
        for count in (output.cached_tokens, output.processed) if output.processed else ():
            if count > self.processed:  # not again what is computed again
                self.processed = count
                update.processed.append(count)
        for index, token in enumerate(output.tokens):
            self.said.append(token)
            offset = self._certain + len(self._raw)
            self._held.append(Token(token, offset, output.logprobs[index] if output.logprobs else None))
            if self._push(self._decoder.push(token) or self._shown.get(token, ""), update):
                return
        if output.finish_reason and not self._push(self._decoder.flush(), update):
            self._finish(update, self._stops.flush(), output.finish_reason)
            if output.end:
                self.end = Token(output.end.id, self._certain, output.end)
                update.tokens.append(self.end)

    def cut(self) -> Update:
        """End the answer here and ignore later outputs."""
        update = Update()
        self._finish(update, self._stops.flush(), "length")
        return update

    def _push(self, piece: str, update: Update) -> bool:
        """Add a piece of text. Returns whether a stop string ended the answer."""
        self._raw += piece
        certain, stopped = self._stops.push(piece)
        if stopped:
            self.stopping_word = self._stops.found
            self._finish(update, certain, "stop", cut=True)
            return True
        self._release(update, certain)
        return False

    def _release(self, update: Update, certain: str) -> None:
        update.text += certain
        self.multiline = self.multiline or "\n" in certain
        self._certain += len(certain)
        self._raw = self._raw[len(certain) :]
        ends = [t.offset for t in self._held[1:]] + [self._certain + len(self._raw)]
        count = 0
        while count < len(ends) and ends[count] <= self._certain:
            count += 1
        update.tokens += self._held[:count]
        del self._held[:count]

    def _finish(self, update: Update, certain: str, reason: FinishReason, cut: bool = False) -> None:
        """Add the last text. If a stop string cut it, tokens behind the cut are not reported."""
        self._release(update, certain)
        update.tokens += [t for t in self._held if not cut or t.offset < self._certain]
        update.reason = self.reason = reason


def openai_finish_reason(reason: FinishReason | None) -> str | None:
    """OpenAI's finish_reason. Every other reason ends in an error."""
    return reason if reason in ("stop", "length") else None
