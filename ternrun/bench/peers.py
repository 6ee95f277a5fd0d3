"""Other runtimes on the same file, turn by turn with this one, so that both see the same machine.

`llama.cpp` is run by its own `llama-bench` program, or through an installed llama-cpp-python.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from ternrun.bench import first_token
from ternrun.bench.subject import Subject, tokens
from ternrun.bench.timing import Rate
from ternrun.bench.works import DECODED, Work
from ternrun.errors import KernelError, UsageError


class Peer(Protocol):
    """Another runtime."""

    name: str

    def can(self, work: Work) -> bool:
        """Whether it has a figure for this work."""
        ...

    def seconds(self, path: Path, work: Work) -> float:
        """Time of one run. Raises UsageError where it cannot run the file."""
        ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """One work by both; `ratio` is the median of what this runtime was faster by, turn by turn."""

    work: str
    peer: str
    ours: Rate
    theirs: Rate
    ratio: float

    @property
    def json(self) -> dict[str, Any]:
        """As it stands in the JSON object."""
        return {
            "work": self.work, "peer": self.peer, "tokens_per_s": self.ours.json,
            "peer_tokens_per_s": self.theirs.json, "ratio": self.ratio,
        }  # fmt: skip


def compare(subject: Subject, peer: Peer, path: Path, work: Work, runs: int) -> Comparison:
    """Both in turn, `runs` times after one that warms up."""

    def once() -> float:
        if work.kind == "load":
            return first_token.measure(path, subject.model.engine.threads).seconds
        return subject.once(work)

    turns = [(once(), peer.seconds(path, work)) for _ in range(runs + 1)][1:]
    ours, theirs = ([turn[i] for turn in turns] for i in (0, 1))
    ratio = median(b / a for a, b in turns)
    return Comparison(work.name, peer.name, Rate.of(tokens(work), ours), Rate.of(tokens(work), theirs), ratio)


class LlamaBench:
    """llama.cpp's benchmark program: prompts, decoding, decoding at a depth, and starting."""

    name = "llama.cpp"

    def __init__(self, program: str, threads: int) -> None:
        found = shutil.which(program)
        if found is None:
            raise UsageError(f"{program} is not a program that can be run")
        self._program, self._threads = str(Path(found).absolute()), threads

    def can(self, work: Work) -> bool:
        """It has no batches."""
        return work.kind in ("pp", "tg", "ctx", "load")

    def seconds(self, path: Path, work: Work) -> float:
        """Time of one run, the loading not counted; for `load` of the whole process, which makes one token."""
        flags = {
            "load": ["-p", "0", "-n", "1", "--no-warmup"],
            "pp": ["-p", str(work.number), "-n", "0"],
            "tg": ["-p", "0", "-n", str(work.number)],
            "ctx": ["-p", "0", "-n", str(DECODED), "-d", str(work.number - DECODED)],
        }[work.kind]
        command = [self._program, "-m", str(path), *flags, "-t", str(self._threads), "-r", "1", "-o", "json"]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        taken = time.perf_counter() - start
        try:
            if work.kind == "load" and json.loads(done.stdout)[0]["avg_ts"]:
                return taken
            return tokens(work) / float(json.loads(done.stdout)[0]["avg_ts"])
        except (ValueError, LookupError, TypeError, ZeroDivisionError):
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise UsageError(f"{self._program} could not run {path}: {said}") from None


STARTING = """
import llama_cpp
model = llama_cpp.Llama({path!r}, n_ctx=1024, n_threads={threads}, n_threads_batch={threads}, verbose=False)
model.eval([1])
print(model.n_tokens, flush=True)
"""


class LlamaPython:
    """llama.cpp through llama-cpp-python."""

    name = "llama.cpp"

    def __init__(self, threads: int) -> None:
        if find_spec("llama_cpp") is None:
            raise UsageError("--against llama.cpp needs llama-cpp-python, or --llama-bench PATH")
        self._threads = threads
        self._model: Any = None

    def can(self, work: Work) -> bool:
        """As `LlamaBench`."""
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


def find(name: str, program: str, threads: int) -> Peer:
    """The peer of that name. Raises UsageError where it is unknown or absent."""
    if name != "llama.cpp":
        raise UsageError(f"{name!r} is not a runtime to compare with; only llama.cpp is")
    return LlamaBench(os.path.expanduser(program), threads) if program else LlamaPython(threads)  # noqa: PTH111
