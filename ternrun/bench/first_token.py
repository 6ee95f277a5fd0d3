"""From the start of a process to a model's first token: `python -m ternrun.bench.first_token FILE THREADS`.

The process that measures starts this one, and reads the line it prints when the token is there.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ternrun.errors import KernelError


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from starting the process to its first token, and the memory it had taken at most by then."""

    seconds: float
    peak_rss_bytes: int


def measure(path: Path, threads: int) -> Start:
    """Start a process and wait for its first token. Raises KernelError with what it said where none came."""
    command = [sys.executable, "-P", "-m", __name__, str(path), str(threads)]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    try:
        seconds, line = until_line(command, environment)
    except KernelError as error:
        raise KernelError(f"a process that was to load {path} failed: {error}") from None
    return Start(seconds, int(line))


def until_line(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """Seconds until a process has said its first line, and that line. Raises KernelError where it fails."""
    import subprocess  # the process that is measured does without

    start = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline() if process.stdout else ""
        seconds = time.perf_counter() - start
        _, errors = process.communicate()
    if process.returncode or not line:
        raise KernelError((errors.strip().splitlines() or ["it said nothing"])[-1])
    return seconds, line


def main(argv: list[str]) -> int:
    """Load, make one token, say how much memory it took."""
    from ternrun.api import load

    with load(argv[0], threads=int(argv[1])) as model:
        print(model.complete([1], max_tokens=1, ignore_eos=True).peak_rss_bytes, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
