"""The engine: continuous batching of token ids. It knows nothing of text, files or threads (see driver.py).

A request's result depends on the request alone: not on the batch, the chunk size, the order of arrival, preemption, or
the contents of the cache.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import TernrunError, UsageError
from ternrun.runtime.backend.protocol import Batch, LogitsRows, Model
from ternrun.runtime.config import DEFAULT_CONTEXT, SamplingParams
from ternrun.runtime.engine.counters import Counters
from ternrun.runtime.engine.multi_step import StepPacer
from ternrun.runtime.engine.pooling import add_states, embedding_of
from ternrun.runtime.engine.request import Draft, FinishReason, Request, Sequence, StepOutput
from ternrun.runtime.engine.scheduler import Chunk, Scheduler, batch
from ternrun.runtime.kv_cache import KVCache
from ternrun.runtime.sampling.logprobs import TokenLogprobs, token_logprobs
from ternrun.runtime.sampling.mirostat import Mirostat
from ternrun.runtime.sampling.penalties import NO_BREAKERS, Breakers, dries
from ternrun.runtime.sampling.sampler import (
    Draw,
    bias_of,
    full_logits,
    logits_needed,
    mask_of,
    sample,
    sampled,
    takes_largest,
)

CONSTRAINT_WAIT = 0.001  # seconds to wait for the allowed tokens of a row

Sampled = tuple[tuple[int, ...], tuple[TokenLogprobs, ...], FinishReason | None, TokenLogprobs | None]


class Engine:
    """Runs requests on one model. Not thread-safe: one thread calls everything except `check`.

    `eos_ids` end a request, as its own stop ids do. `drafter` makes a proposer of draft tokens for each request; the
    model verifies drafts in one pass, which changes the speed and never the result. `breakers` finds the tokens of
    DRY's sequence breakers; any thread may call it.
    """

    def __init__(
        self,
        model: Model,
        eos_ids: frozenset[int] = frozenset(),
        drafter: Callable[[], Draft] | None = None,
        breakers: Callable[[tuple[str, ...]], Breakers] | None = None,
    ) -> None:
        options = model.engine_config
        room = min(model.config.context_length, model.n_blocks * model.block_size)
        self.model = model
        self.context = min(options.context or DEFAULT_CONTEXT, room)  # tokens a sequence may reach
        self._eos_ids = eos_ids
        self.cache = KVCache(model.n_blocks, model.block_size, self.context)  # for the thread that calls `step` only
        whole = not model.config.causal
        self._scheduler = Scheduler(self.cache, options.max_batch, options.prefill_chunk, whole=whole)
        self._drafter = drafter
        self._breakers = breakers
        self._pace = StepPacer()
        self._sequences: dict[int, Sequence] = {}
        self._ids = itertools.count()
        self.counters = Counters()

    @property
    def max_batch(self) -> int:
        """The largest number of sequences that run together."""
        return self.model.engine_config.max_batch

    def check(self, request: Request) -> None:
        """Raise UsageError or ContextError for a request that `add` would refuse. Safe from any thread."""
        request.check(self.model.config.vocab_size, self.context)
        self._breaking(request.params)  # slow, so it runs in the caller's thread
        if not (self.model.config.causal or request.pooling):
            raise UsageError("this model gives embeddings only: it cannot generate or score")

    def add(self, request: Request) -> int:
        """Queue a request; returns the id that its outputs carry. Raises as `check` does."""
        self.check(request)
        params = request.params
        bias, early = bias_of(params, self._eos_ids), params.min_tokens > 0
        allowed = mask_of(params, self.model.config.vocab_size)
        constrained = request.constraint is not None or allowed is not None
        largest = takes_largest(params, bias, constrained=constrained)
        first = bias_of(params, self._eos_ids, early=early)
        sequence = Sequence(
            id=next(self._ids),
            request=request,
            table=self.cache.table(),
            seed=int.from_bytes(os.urandom(8), "little") if params.seed is None else params.seed,
            limit=min(len(request.ids) + (0 if request.pooling else params.max_tokens), self.context),
            stops=frozenset(params.stop_ids) | (frozenset() if params.ignore_eos else self._eos_ids),
            bias=bias,
            ids=list(request.ids),
            early=first if early else None,
            allowed=allowed,
            breakers=self._breaking(params),
            mirostat=Mirostat(params) if params.mirostat else None,
            top_logits=logits_needed(params, first, constrained=constrained),
            greedy=largest,
            banned=frozenset(bias.ids.tolist()) if largest and bias else frozenset(),
            draft=self._drafter() if self._drafter else None,
            constraint=request.constraint() if request.constraint else None,
        )
        self._sequences[sequence.id] = sequence
        self._scheduler.waiting.append(sequence)
        return sequence.id

    def _breaking(self, params: SamplingParams) -> Breakers:
        if self._breakers is None or not dries(params):
            return NO_BREAKERS
        return self._breakers(params.dry_sequence_breakers)

    def abort(self, request_id: int) -> None:
        """Drop a request and free what it holds. It gets no further output. Unknown and finished ids are ignored."""
        sequence = self._sequences.pop(request_id, None)
        if sequence:
            self._scheduler.remove(sequence)
            if sequence.constraint:
                sequence.constraint.close()

    @property
    def has_work(self) -> bool:
        """Whether a request is waiting or running."""
        return bool(self._sequences)

    @property
    def load(self) -> tuple[int, int]:
        """The numbers of running and of waiting requests. Safe to read from any thread."""
        return len(self._scheduler.running), len(self._scheduler.waiting)

    def step(self) -> list[StepOutput]:
        """Run one batch and return the outputs of its requests.

        A request whose prompt is not complete has no output, unless it asks for progress.
        """
        chunks = self._scheduler.schedule()
        if not chunks:
            return []
        steps = self._scheduler.max_multi_steps(chunks, self._pace.steps)
        if steps > 1 and (done := self._decode(chunks, steps)):
            return done
        self.counters.add(chunks)
        pooled = [chunk for chunk in chunks if chunk.sequence.request.pooling]
        others = [chunk for chunk in chunks if chunk not in pooled] if pooled else chunks
        return self._run(self.model.forward, others) + self._run(self.model.embed, pooled)

    def _run(self, run: Callable[[Batch], LogitsRows], chunks: list[Chunk]) -> list[StepOutput]:
        """Run chunks that need the same kind of result, and handle the result."""
        if not chunks:
            return []
        with self._pace.call(1):
            rows, at, outputs = run(batch(chunks)), 0, []
        for chunk in chunks:
            end = at + len(chunk.scored) + len(chunk.sampled)
            if output := self._advance(chunk, rows[at:end]):
                outputs.append(output)
            at = end
        return outputs

    def _decode(self, chunks: list[Chunk], steps: int) -> list[StepOutput]:
        """Run several greedy steps in one call of the model. Returns no outputs if the model makes none."""
        ends = [chunk.sequence.stops | chunk.sequence.banned for chunk in chunks]
        with self._pace.call(steps):
            chosen = self.model.decode(batch(chunks), steps, ends[0].union(*ends[1:]))
        refused = [
            c.sequence for c, made in zip(chunks, chosen, strict=False) if made and made[-1] in c.sequence.banned
        ]
        if refused:  # a sequence that hits a banned token usually hits it again, so it continues in single steps
            chosen = [tokens[:-1] for tokens in chosen]
            for sequence in refused:
                sequence.greedy = False
        if not (chosen and chosen[0]):
            return []
        self.counters.add(chunks, len(chosen[0]))
        return [self._accept(chunk.sequence, tokens) for chunk, tokens in zip(chunks, chosen, strict=True)]

    def _accept(self, sequence: Sequence, tokens: list[int]) -> StepOutput:
        """Handle the tokens that several steps chose. Only the last token can end its sequence."""
        sequence.ids += tokens[:-1]
        sequence.computed += len(tokens)
        reason = self._end(sequence, sequence.accept(tokens[-1]))
        said = tokens[:-1] if reason == "stop" else tokens
        return StepOutput(sequence.id, tuple(said), (), (), reason, sequence.cached, made=time.perf_counter())

    def _advance(self, chunk: Chunk, rows: LogitsRows) -> StepOutput | None:
        """Handle the rows of a chunk: record what is computed, and end the sequence if it is done."""
        sequence = chunk.sequence
        try:
            if sequence.request.pooling:
                return self._pool(chunk, [full_logits(row) for row in rows])
            scores = self._score(chunk, rows[: len(chunk.scored)]) if chunk.scored else ()
            tokens, logprobs, reason, end = self._sample(chunk, rows[len(chunk.scored) :])
        except TernrunError as error:  # NaN logits end this request only
            self.abort(sequence.id)
            return StepOutput(sequence.id, finish_reason="error", error=error)
        self.counters.accepted += sequence.computed - (chunk.start + len(chunk.tokens) - chunk.drafted)
        reason = self._end(sequence, reason)
        processed = min(sequence.computed, len(sequence.request.ids)) if sequence.request.progress else 0
        if not (scores or tokens or reason or processed):
            return None
        return StepOutput(
            sequence.id, tokens, logprobs, scores, reason, sequence.cached, end=end, made=time.perf_counter(),
            processed=processed,
        )  # fmt: skip

    def _end(self, sequence: Sequence, reason: FinishReason | None) -> FinishReason | None:
        """Publish the computed blocks and end the sequence if there is a finish reason.

        A sequence whose context is full continues instead if it may drop its middle.
        """
        self.cache.publish(sequence.table, sequence.ids, sequence.computed)
        if reason == "length" and sequence.shift(self.context):
            self._scheduler.restart(sequence)
            sequence.draft = self._drafter() if self._drafter else None
            return None
        if reason:
            self.abort(sequence.id)
        return reason

    def _pool(self, chunk: Chunk, rows: list[NDArray[np.float32]]) -> StepOutput | None:
        """Add hidden states (dim,). Returns the pooled result when all states are there. Raises LoadError."""
        sequence = chunk.sequence
        add_states(sequence, rows, first=chunk.start == 0)
        sequence.computed = chunk.start + len(chunk.tokens)
        if self.model.config.causal:
            self.cache.publish(sequence.table, sequence.ids, sequence.computed)
        if sequence.computed < len(sequence.ids):
            return None
        self.abort(sequence.id)
        found = embedding_of(sequence)
        return StepOutput(sequence.id, finish_reason="length", cached_tokens=sequence.cached, embedding=found)

    def _score(self, chunk: Chunk, rows: LogitsRows) -> tuple[TokenLogprobs, ...]:
        """Log-probabilities of the prompt tokens that follow the scored positions."""
        sequence, after = chunk.sequence, chunk.start + chunk.scored.start + 1
        top = sequence.request.prompt_logprobs or 0
        sequence.scored = max(sequence.scored, chunk.start + chunk.scored.stop)
        return tuple(token_logprobs(full_logits(row), sequence.ids[after + i], top) for i, row in enumerate(rows))

    def _sample(self, chunk: Chunk, rows: LogitsRows) -> Sampled:
        """Sample tokens from the rows, up to the first that differs from the draft that the next row assumes.

        A row whose constraint is not ready is computed again later.
        """
        sequence, params = chunk.sequence, chunk.sequence.request.params
        constraint = sequence.constraint
        guesses = chunk.tokens[len(chunk.tokens) - chunk.drafted :]
        sequence.computed = chunk.start + len(chunk.tokens) - chunk.drafted
        tokens: list[int] = []
        logprobs: list[TokenLogprobs] = []
        reason: FinishReason | None = "length" if sequence.computed == sequence.limit else None
        for row, guess in zip(rows, [*guesses, None], strict=False):
            allowed = None
            if constraint:
                if not constraint.ready(CONSTRAINT_WAIT):
                    sequence.computed -= 1
                    break
                allowed = constraint.allowed()
                if allowed is None:
                    reason = "stop"
                    break
            how = Draw(
                params, sequence.ids, sequence.seed, sequence.early if sequence.young else sequence.bias,
                sequence.admitted(allowed), sequence.breakers, sequence.mirostat,
            )  # fmt: skip
            told = None
            if params.logprobs is not None and params.sampled_logprobs:
                told = sampled(row, *how)
            token = told.id if told else sample(row, *how)
            if params.logprobs is not None and not told:
                told = token_logprobs(full_logits(row), token, params.logprobs)
            reason = sequence.accept(token)
            if reason == "stop":
                return tuple(tokens), tuple(logprobs), reason, told
            tokens.append(token)
            logprobs += [told] if told else []
            if constraint and not reason:
                constraint.accept(token)
            if reason or token != guess:
                break
            sequence.computed += 1
        return tuple(tokens), tuple(logprobs), reason, None
