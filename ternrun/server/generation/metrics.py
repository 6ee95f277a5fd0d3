"""Metrics for Prometheus, under our own names and, if llama.cpp's server has the same metric, under its name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ternrun.runtime.engine.counters import Counters

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_WATCH = 0.1  # seconds
_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(slots=True)
class Totals:
    """Totals since the server started."""

    prompt: int = 0  # tokens, those found in the cache included
    cached: int = 0
    generated: int = 0
    prompt_s: float = 0.0  # from a sequence's arrival to its first token
    decode_s: float = 0.0  # from there to its last; sequences that run together each count

    def add(self, prompt: int, generated: int, cached: int) -> None:
        """Add the tokens of one request."""
        self.prompt += prompt
        self.generated += generated
        self.cached += cached


class Metrics:
    """The registry of one server. `load` returns running and waiting sequences, `counters` what the engine has done."""

    def __init__(self, load: Callable[[], tuple[int, int]], counters: Callable[[], Counters]) -> None:
        self.totals = Totals()
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "ternrun_requests", "Answers by route and status.", ["route", "status"], registry=self._registry
        )
        self.refused = Counter(
            "ternrun_requests_refused", "Requests that the queue had no place for.",
            registry=self._registry,
        )  # fmt: skip
        self.first_token_s = Histogram(
            "ternrun_time_to_first_token_seconds", "From a request's arrival to its first token.",
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self.token_s = Histogram(
            "ternrun_inter_token_seconds", "Between two tokens of a sequence.",
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self.lag_s = Histogram(
            "ternrun_event_loop_lag_seconds", "How late the event loop came, ten times a second.",
            buckets=_LAGS, registry=self._registry,
        )  # fmt: skip
        self._registry.register(_Figures(self.totals, load, counters))

    async def watch(self) -> None:
        """Measure the delay of the event loop until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _WATCH
            await asyncio.sleep(_WATCH)
            self.lag_s.observe(max(loop.time() - due, 0.0))

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Figures(Collector):
    """Metrics that other objects hold, read on each scrape."""

    def __init__(self, totals: Totals, load: Callable[[], tuple[int, int]], counters: Callable[[], Counters]) -> None:
        self._totals, self._load, self._counters = totals, load, counters

    def collect(self) -> Iterator[Metric]:
        """Metrics for prometheus-client."""
        totals, (running, waiting), counters = self._totals, self._load(), self._counters()
        for name, what, value in (
            ("ternrun_prompt_tokens", "Prompt tokens, cached ones included.", totals.prompt),
            ("ternrun_cached_tokens", "Prompt tokens found in the cache.", totals.cached),
            ("ternrun_generated_tokens", "Tokens generated.", totals.generated),
            ("ternrun_steps", "Steps of the engine.", counters.steps),
            ("ternrun_step_tokens", "Tokens computed, prompts and guesses included.", counters.tokens),
            ("ternrun_drafted_tokens", "Tokens guessed ahead.", counters.drafted),
            ("ternrun_accepted_tokens", "Guesses that were right.", counters.accepted),
            ("llamacpp:n_decode", "Steps of the engine.", counters.steps),
            ("llamacpp:spec_decode_num_draft_tokens", "Tokens guessed ahead.", counters.drafted),
            ("llamacpp:spec_decode_num_accepted_tokens", "Guesses that were right.", counters.accepted),
            ("llamacpp:prompt_tokens", "Prompt tokens processed.", totals.prompt - totals.cached),
            ("llamacpp:prompt_seconds", "Seconds spent on prompts.", totals.prompt_s),
            ("llamacpp:tokens_predicted", "Tokens generated.", totals.generated),
            ("llamacpp:tokens_predicted_seconds", "Seconds spent generating.", totals.decode_s),
        ):
            yield CounterMetricFamily(name, what, value)
        for name, what, figure in (
            ("ternrun_sequences_running", "Sequences in the batch.", running),
            ("ternrun_sequences_waiting", "Sequences in the queue.", waiting),
            ("ternrun_batch_fill", "Sequences a step, on average.", _rate(counters.sequences, counters.steps)),
            ("ternrun_cache_hits", "Share of prompt tokens found in the cache.", _rate(totals.cached, totals.prompt)),
            ("llamacpp:n_busy_slots_per_decode", "Sequences a step.", _rate(counters.sequences, counters.steps)),
            ("llamacpp:requests_processing", "Sequences in the batch.", running),
            ("llamacpp:requests_deferred", "Sequences in the queue.", waiting),
            ("llamacpp:prompt_tokens_seconds", "Prompt tokens a second.", _rate(totals.prompt, totals.prompt_s)),
            ("llamacpp:predicted_tokens_seconds", "Tokens a second.", _rate(totals.generated, totals.decode_s)),
        ):
            yield GaugeMetricFamily(name, what, figure)


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds else 0.0
