"""Coverage-guided fuzzing: `python -m tests.fuzz.run TARGET [libFuzzer options]` until it finds something.

Starts from the samples of `corpus.py`; with a folder among the options, also from what earlier runs left there.
The input that broke something is written to crash-* in the current folder.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["ternrun", "json"]):
    from tests.fuzz.targets import TARGETS, accepts

from tests.fuzz.corpus import CORPORA
from tests.fuzz.mutate import mutate

SECONDS = 2.0  # of processor time an input may take, slowed down by the tracing; libFuzzer's own limit is of wall time
# the mutator keeps about 1 KB of each input: of a run of millions, that is most of the memory
LIMITS = ["-timeout=60", "-rss_limit_mb=4096", "-max_len=65536"]


def _mutator(data: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's own changes and ours in turn."""
    if seed % 2:
        return bytes(atheris.Mutate(data, max_size))
    return mutate(data, Random(seed))[:max_size]


def main() -> None:
    """Fuzz the target named on the command line."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name a target: {', '.join(TARGETS)}")
    name, options = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        for i, sample in enumerate(CORPORA[name]()):
            (Path(folder) / str(i)).write_bytes(sample)
        known = [o for o in options if not o.startswith("-")]
        flags = [o for o in options if o.startswith("-")]

        def test_one_input(data: bytes) -> None:
            start = time.thread_time()
            accepts(name, data)
            assert time.thread_time() - start < SECONDS

        arguments = [sys.argv[0], *LIMITS, *flags, *known, folder]
        atheris.Setup(arguments, test_one_input, custom_mutator=_mutator)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
