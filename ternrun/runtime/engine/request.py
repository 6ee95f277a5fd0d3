"""A request to the engine, the output of one step, and the state of a running sequence."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import ConfigError, ContextError, UsageError
from ternrun.runtime.config import Pooling, SamplingParams
from ternrun.runtime.engine.context_shift import NEXT_SEED, ContextShift, shift_tokens
from ternrun.runtime.kv_cache import BlockTable
from ternrun.runtime.sampling.constraint import Constraint
from ternrun.runtime.sampling.logprobs import TokenLogprobs
from ternrun.runtime.sampling.mirostat import Mirostat
from ternrun.runtime.sampling.penalties import NO_BREAKERS, Breakers
from ternrun.runtime.sampling.sampler import Bias

FinishReason = Literal["stop", "length", "abort", "error"]


class Draft(Protocol):
    """Proposes draft tokens for one sequence."""

    @property
    def rest(self) -> int:
        """Tokens that may be generated before the next call is useful."""
        ...

    def __call__(self, ids: list[int], most: int) -> list[int]:
        """At most `most` draft tokens that may follow `ids`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Continue the token ids `ids`. The caller handles stop strings in `params`, because the engine knows no text.

    With `prompt_logprobs` = k, every prompt token but the first is reported with its log-probability and the k
    likeliest tokens. With `params.max_tokens` = 0 nothing is generated, so both together score a given text. `progress`
    asks for an output after every step of the prompt. `constraint` makes an object that says which tokens are allowed.
    With `pooling`, the result is the final-norm hidden states and nothing is generated. Requests of one `group` (any
    object) come from one client and share its places. `shift` says what to drop when the context is full; without it a
    full context ends the request.
    """

    ids: Items[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    prompt_logprobs: int | None = None
    constraint: Callable[[], Constraint] | None = None
    pooling: Pooling | None = None
    group: object = None
    progress: bool = False
    shift: ContextShift | None = None

    def check(self, vocab_size: int, context: int) -> None:
        """Raise UsageError or ContextError for a request that a model of this vocabulary and context cannot run."""
        n, params = len(self.ids), self.params
        if n == 0:
            raise UsageError("the prompt is empty: there is no token to start from")
        generated = 0 if self.pooling else params.max_tokens
        if n + min(generated, 1) > context:
            raise too_long(n, context)
        if type(self.prompt_logprobs or 0) is not int or not 0 <= (self.prompt_logprobs or 0) <= 1000:
            raise UsageError(f"prompt_logprobs must be a whole number from 0 to 1000, not {self.prompt_logprobs!r}")
        for what, ids in (
            ("prompt", self.ids),
            ("stop_ids", params.stop_ids),
            ("allowed_token_ids", params.allowed_token_ids),
            ("logit_bias", [i for i, _ in params.logit_bias]),
        ):
            for i in ids:
                if type(i) is not int or not 0 <= i < vocab_size:
                    kind = UsageError if ids is self.ids else ConfigError
                    raise kind(f"{what}: {i!r} is not a token id of this model (0 to {vocab_size - 1})")
        for i, value in params.logit_bias:
            if not -float("inf") <= value <= 1e6:  # false for NaN too
                raise UsageError(f"logit_bias of token {i} must be at most 1e6, not {value}")


def too_long(n: int, context: int) -> ContextError:
    """The error for a prompt of `n` tokens that exceeds the context."""
    message = f"the prompt has {n} tokens, but the context holds {context}, the answer's included"
    return ContextError(message, tokens=n, context=context)


class StepOutput(NamedTuple):
    """The output of one step for one request. The last output of a request has a `finish_reason`.

    `tokens` does not contain the end token that stopped the request. `error` is set if the reason is "error".
    """

    id: int
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()  # one per token, where params.logprobs is set
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()  # of the next prompt tokens, in order
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0  # prompt tokens whose keys and values were in the cache already
    error: Exception | None = None
    end: TokenLogprobs | None = None  # of the end token that stopped it, where params.logprobs is set
    embedding: NDArray[np.float32] | None = None  # (dim,); with pooling none (tokens, dim)
    made: float = (
        0.0  # time.perf_counter() of the step; the reader may be late, because worker threads keep all cores busy
    )
    processed: int = 0  # prompt tokens whose keys and values are there by now, where `progress` asks


@dataclass(slots=True, eq=False)
class Sequence:
    """A running or waiting request. `ids`: prompt and output without dropped tokens; the last is not computed yet."""

    id: int
    request: Request
    table: BlockTable
    seed: int
    limit: int  # tokens at which it ends, prompt included
    stops: frozenset[int]
    bias: Bias | None
    ids: list[int]
    early: Bias | None = None  # in place of `bias` where it has fewer than `min_tokens`
    allowed: NDArray[np.bool_] | None = None  # (vocab_size,): of `allowed_token_ids`
    breakers: Breakers = NO_BREAKERS
    mirostat: Mirostat | None = None
    top_logits: int = 0  # how many of the largest logits decide its next token; 0: all (`sampler.logits_needed`)
    greedy: bool = False  # its next token is that of the largest logit unless `banned`, and nothing else is asked
    banned: frozenset[int] = frozenset()
    draft: Draft | None = None
    constraint: Constraint | None = None
    computed: int = 0  # leading tokens whose keys and values are in the cache
    scored: int = 0  # leading prompt tokens after which the next one's log-probability was reported
    cached: int = 0  # tokens the cache had at first admission
    preempted: bool = False  # it ran before and was preempted
    dropped: int = 0  # tokens that were shifted out of `ids`
    hidden: list[NDArray[Any]] = field(default_factory=list)  # what is pooled: states (dim,), or their sum so far

    @property
    def pending(self) -> int:
        """The number of known tokens that the model has not computed."""
        return len(self.ids) - self.computed

    @property
    def reusable(self) -> int:
        """The number of leading tokens that may come from the cache, because no result is needed after them."""
        if self.request.pooling not in (None, "last"):
            return 0
        last = len(self.ids) - 1
        return last if self.request.prompt_logprobs is None else min(self.scored, last)

    @property
    def young(self) -> bool:
        """Whether the sequence has too few tokens to end."""
        if self.early is None:
            return False
        return len(self.ids) + self.dropped - len(self.request.ids) < self.request.params.min_tokens

    def admitted(self, allowed: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """The allowed tokens (vocab_size,), given those that a grammar allows."""
        if self.allowed is None or allowed is None:
            return self.allowed if allowed is None else allowed
        return self.allowed & allowed

    def accept(self, token: int) -> FinishReason | None:
        """Append a sampled token. Returns the finish reason, if any. An end token is not appended."""
        if token in self.stops:
            return "stop"
        self.ids.append(token)
        return "length" if len(self.ids) >= self.limit else None

    def shift(self, context: int) -> bool:
        """Drop the middle of `ids` if they fill the context and more tokens are wanted. Returns whether it did.

        The remaining tokens are computed again.
        """
        wanted = len(self.request.ids) + self.request.params.max_tokens
        if self.request.shift is None or not len(self.ids) == context < wanted - self.dropped:
            return False
        self.ids = shift_tokens(self.ids, len(self.request.ids), self.request.shift)
        self.dropped += context - len(self.ids)
        self.limit = min(wanted - self.dropped, context)
        self.seed = (self.seed + NEXT_SEED) % 2**64  # positions repeat and need other random numbers
        self.computed = 0
        return True
