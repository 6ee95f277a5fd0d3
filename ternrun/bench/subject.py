"""A loaded model on its engine, and how long its work takes: tokens in, tokens out, sampling and Python included."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ternrun.bench.works import DECODED, Work
from ternrun.loader.model import open_model
from ternrun.runtime.backend.protocol import ProgressCallback
from ternrun.runtime.config import EngineConfig, KvType, SamplingParams
from ternrun.runtime.cpu.model import CpuModel
from ternrun.runtime.engine.engine import Engine
from ternrun.runtime.engine.request import Request


class Subject:
    """One model file, loaded for some works; `runs` is how often each is timed."""

    def __init__(self, model: CpuModel, runs: int) -> None:
        self.model, self.runs = model, runs
        self.cycles: dict[str, NDArray[np.int64]] = {}  # what `CpuModel.cycles` is while the clock runs
        self.steps = 0  # of the model, that were timed, warming up included
        self._rng = np.random.default_rng(0)

    def seconds(self, work: Work) -> list[float]:
        """Times of `runs` runs, after one that warms up."""
        if work.kind == "ctx":
            return self._at_depth(work.number, self.runs)
        return [self.once(work) for _ in range(self.runs + 1)][1:]

    def once(self, work: Work) -> float:
        """Time of one run."""
        if work.kind == "ctx":
            return self._at_depth(work.number, 0)[0]
        return {"pp": self._prompt, "tg": self._generate, "batch": self._together}[work.kind](work.number)

    def _prompt(self, tokens: int) -> float:
        return self._time(self._engine(tokens, 1))

    def _generate(self, tokens: int) -> float:
        return self._time(self._engine(1, tokens))

    def _together(self, sequences: int) -> float:
        engine = self._engine(1, DECODED + 1, sequences)
        engine.step()  # all prompts
        return self._time(engine)

    def _at_depth(self, depth: int, runs: int) -> list[float]:
        """Each run goes on from one prompt, whose keys and values are computed once, and ends at `depth` tokens."""
        engine, times = Engine(self.model), list[float]()
        ids = self._random(depth - DECODED - 1)
        for _ in range(runs + 1):
            engine.add(_request(ids, DECODED + 1))
            while not engine.step():  # the prompt, until its first token
                pass
            times.append(self._time(engine))
        return times[1:] or times

    def _engine(self, prompt: int, tokens: int, sequences: int = 1) -> Engine:
        """An engine with requests of random tokens, so that none finds another's prefix."""
        engine = Engine(self.model)
        for _ in range(sequences):
            engine.add(_request(self._random(prompt), tokens))
        return engine

    def _random(self, tokens: int) -> list[int]:
        ids: list[int] = self._rng.integers(0, self.model.config.vocab_size, tokens).tolist()
        return ids

    def _time(self, engine: Engine) -> float:
        """Seconds of the engine's next steps, until it has no more work."""
        self.model.cycles = self.cycles
        before = engine.counters.steps
        start = time.perf_counter()
        while engine.has_work:
            engine.step()
        seconds = time.perf_counter() - start
        self.model.cycles = {}
        self.steps += engine.counters.steps - before
        return seconds


def _request(ids: list[int], tokens: int) -> Request:
    return Request(ids, SamplingParams(max_tokens=tokens, ignore_eos=True))


def tokens(work: Work) -> int:
    """Tokens that one run of a work brings."""
    return {"pp": work.number, "tg": work.number, "batch": work.number * DECODED, "ctx": DECODED, "load": 1}[work.kind]


def engine_config(works: list[Work], context: int, threads: int, kv_type: KvType) -> EngineConfig:
    """Settings with room for all these works, and otherwise the defaults."""
    together = max((w.number for w in works if w.kind == "batch"), default=0)
    longest = max((w.number + 1 for w in works if w.kind != "batch"), default=1)
    longest = min(max(longest, DECODED + 2), context)
    defaults = EngineConfig()
    return EngineConfig(
        threads=threads, kv_type=kv_type, context=longest, max_batch=max(together, defaults.max_batch),
        kv_tokens=max(longest, together * (DECODED + 2 + 16)),
    )  # fmt: skip


@contextmanager
def loaded(
    path: Path,
    works: list[Work],
    threads: int,
    runs: int,
    progress: ProgressCallback | None = None,
    kv_type: KvType = "f16",
) -> Iterator[Subject]:
    """Open a model file for these works."""
    with open_model(path) as file:
        engine = engine_config(works, file.weights.config.context_length, threads, kv_type)
        model = CpuModel(file.weights, engine, progress=progress)
        try:
            yield Subject(model, runs)
        finally:
            model.close()
