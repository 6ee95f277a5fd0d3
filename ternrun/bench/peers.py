"""Other runtimes on the same file, turn by turn with this one, so that both see the same machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from ternrun.bench import first_token
from ternrun.bench.llama_bench import MAKES, LlamaBench
from ternrun.bench.llama_python import LlamaPython
from ternrun.bench.subject import Subject, tokens
from ternrun.bench.timing import Rate
from ternrun.bench.works import Work
from ternrun.errors import UsageError
from ternrun.loader.user_path import from_home


class Peer(Protocol):
    """Another runtime."""

    name: str
    encoding: str  # of ternary weights, that it is fastest with

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
            return first_token.measure(path, subject.model.engine_config.threads).seconds
        return subject.once(work)

    turns = [(once(), peer.seconds(path, work)) for _ in range(runs + 1)][1:]
    ours, theirs = ([turn[i] for turn in turns] for i in (0, 1))
    ratio = median(b / a for a, b in turns)
    return Comparison(work.name, peer.name, Rate.of(tokens(work), ours), Rate.of(tokens(work), theirs), ratio)


def find(name: str, program: str, threads: int) -> Peer:
    """The peer of that name. Raises UsageError where it is unknown or absent."""
    if name not in MAKES:
        raise UsageError(f"{name!r} is not a runtime to compare with; these are: {', '.join(MAKES)}")
    if program:
        return LlamaBench(name, str(from_home(program)), threads)
    if name != "llama.cpp":
        raise UsageError(f"--against {name} needs --llama-bench PATH")
    return LlamaPython(threads)
