"""llama.cpp through an installed llama-cpp-python."""

from __future__ import annotations

import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ternrun.bench import first_token
from ternrun.bench.works import DECODED, Work
from ternrun.errors import KernelError, UsageError

STARTING = """
import llama_cpp
model = llama_cpp.Llama({path!r}, n_ctx=1024, n_threads={threads}, n_threads_batch={threads}, verbose=False)
model.eval([1])
print(model.n_tokens, flush=True)
"""


class LlamaPython:
    """Prompts, decoding, decoding at a depth, and starting."""

    name, encoding = "llama.cpp", "tq2_0"

    def __init__(self, threads: int) -> None:
        if find_spec("llama_cpp") is None:
            raise UsageError("--against llama.cpp needs llama-cpp-python, or --llama-bench PATH")
        self._threads = threads
        self._model: Any = None

    def can(self, work: Work) -> bool:
        """It is asked for no batches."""
        return work.kind in ("pp", "tg", "ctx", "load")

    def seconds(self, path: Path, work: Work) -> float:
        """Time of one run on a context that was emptied; from a process's start to its first token for `load`."""
        if work.kind == "load":
            program = STARTING.format(path=str(path), threads=self._threads)
            try:
                return first_token.until_line([sys.executable, "-c", program], dict(os.environ))[0]
            except KernelError as error:
                raise UsageError(f"llama-cpp-python could not run {path}: {error}") from None

        import llama_cpp

        n, prompt = {"pp": (0, work.number), "tg": (work.number, 0), "ctx": (DECODED, work.number - DECODED)}[work.kind]
        if self._model is None or self._model.n_ctx() < n + prompt:
            try:
                self._model = llama_cpp.Llama(
                    str(path), n_ctx=max(1024, n + prompt), n_threads=self._threads, n_threads_batch=self._threads,
                    verbose=False,
                )  # fmt: skip
            except ValueError as error:
                raise UsageError(f"llama-cpp-python could not run {path}: {error}") from None
        model = self._model
        model.reset()
        start = time.perf_counter()
        if prompt:
            model.eval([1] * prompt)
        if n:
            start = time.perf_counter()
            for _ in range(n):
                model.eval([1])
        return time.perf_counter() - start
