"""llama.cpp and its forks by their own benchmark programs: `llama-bench`, and `llama-batched-bench` beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from ternrun.bench.subject import tokens
from ternrun.bench.works import DECODED, Work
from ternrun.errors import UsageError


@dataclass(frozen=True, slots=True)
class Make:
    """How one of the family is asked: the ternary encoding that is fastest on it, and its flags."""

    encoding: str
    flags: tuple[str, ...]  # of every run of llama-bench
    batched: tuple[str, ...]  # of llama-batched-bench
    cold: tuple[str, ...]  # of a run that must not warm up; none where it always does
    deep: tuple[str, ...]  # of tokens after others, {depth} and {tokens}; none where it cannot time them alone


MAKES = {
    "llama.cpp": Make("tq2_0", (), (), ("--no-warmup",), ("-n", "{tokens}", "-d", "{depth}")),
    # the fork repacks IQ2_BN into rows of four while it loads
    "ik_llama.cpp": Make("iq2_bn", ("-rtr", "1"), ("-rtr",), ("-w", "0"), ("-n", "0", "-gp", "{depth},{tokens}")),
    "bitnet.cpp": Make("i2_s", (), (), (), ()),
}
_RATE = re.compile(r'"avg_ts": ([0-9.]+)')  # warnings may stand among the lines of JSON
_SPEED = 8  # of llama-batched-bench's columns: tokens a second of all sequences together, the prompt not counted
_TRIES = 5  # of llama-batched-bench: one run of ten, where runs are short, ends before its last line is written


class LlamaBench:
    """Prompts, decoding, decoding at a depth, batches, and starting."""

    def __init__(self, name: str, program: str, threads: int) -> None:
        found = shutil.which(program)
        if found is None:
            raise UsageError(f"{program} is not a program that can be run")
        self.name = name
        self._make, self._threads = MAKES[name], threads
        self.encoding = self._make.encoding
        self._program = Path(found).absolute()
        self._batched = self._program.with_name(self._program.name.replace("llama-bench", "llama-batched-bench"))

    def can(self, work: Work) -> bool:
        """Batches need the other program."""
        make = self._make
        needs = {"load": make.cold, "ctx": make.deep, "batch": self._batched.is_file(), "pp": True, "tg": True}
        return bool(needs.get(work.kind))

    def seconds(self, path: Path, work: Work) -> float:
        """Time of one run, the loading not counted; for `load` of the whole process, which makes one token."""
        if work.kind == "batch":
            return self._together(path, work)
        flags = {
            "load": ("-p", "0", "-n", "1", *self._make.cold),
            "pp": ("-p", str(work.number), "-n", "0"),
            "tg": ("-p", "0", "-n", str(work.number)),
            "ctx": ("-p", "0", *(f.format(depth=work.number - DECODED, tokens=DECODED) for f in self._make.deep)),
        }[work.kind]
        start = time.perf_counter()
        done = self._run(self._program, path, [*flags, *self._make.flags, "-r", "1", "-o", "json"])
        taken = time.perf_counter() - start
        found = _RATE.search(done.stdout)
        if found is None or not float(found[1]):
            raise self._failure(done, path)
        return taken if work.kind == "load" else tokens(work) / float(found[1])

    def _together(self, path: Path, work: Work) -> float:
        sizes = ["-c", work.number * (DECODED + 2), "-npp", 1, "-ntg", DECODED, "-npl", work.number]
        for _ in range(_TRIES):
            done = self._run(self._batched, path, [*map(str, sizes), *self._make.batched])
            rows = [line.split("|") for line in (done.stdout + done.stderr).splitlines() if line.startswith("|")]
            try:
                return tokens(work) / float(rows[-1][_SPEED])
            except (ValueError, LookupError, ZeroDivisionError):
                if done.returncode:
                    break
        raise self._failure(done, path)

    def _run(self, program: Path, path: Path, flags: list[str]) -> subprocess.CompletedProcess[str]:
        command = [str(program), "-m", str(path), *flags, "-t", str(self._threads)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def _failure(self, done: subprocess.CompletedProcess[str], path: Path) -> UsageError:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return UsageError(f"{self._program} could not run {path}: {said}")
