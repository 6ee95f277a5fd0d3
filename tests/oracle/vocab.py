"""llama.cpp's own vocabulary tests on our tokenizers: `python -m tests.oracle.vocab MODELS` prints a table.

MODELS is the folder `models` of llama.cpp's source, which also lies in llama-cpp-python's source distribution: files
ggml-vocab-NAME.gguf, with texts in .inp and llama.cpp's ids in .out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from ternrun.errors import LoadError
from ternrun.loader.gguf.file import open_gguf
from ternrun.loader.tokenizers.tokenizer import Tokenizer
from tests.texts import read

SEPARATOR = "\n__ggml_vocab_test__\n"


class Result(NamedTuple):
    """What one vocabulary's tests gave; `refused` is the reason where it is not supported."""

    name: str
    passed: int = 0
    failed: tuple[str, ...] = ()
    refused: str = ""

    def __str__(self) -> str:
        outcome = f"refused: {self.refused}" if self.refused else f"{self.passed} passed, {len(self.failed)} failed"
        return f"{self.name:16} {outcome}"


def check_family(path: Path) -> Result:
    """Run the tests of one ggml-vocab-NAME.gguf; a family without tests only has to open."""
    name = path.stem.removeprefix("ggml-vocab-")
    try:
        tokenizer = Tokenizer.from_gguf(open_gguf(path).metadata)
    except LoadError as e:
        return Result(name, refused=str(e))
    cases, answers = path.with_name(path.name + ".inp"), path.with_name(path.name + ".out")
    if not cases.is_file():
        return Result(name)
    given = read(cases).removesuffix(SEPARATOR).split(SEPARATOR)
    wanted = [list(map(int, line.split())) for line in read(answers).splitlines()]
    failed = [
        text for text, ids in zip(given, wanted, strict=True) if tokenizer.encode(text, special=False, bos=False) != ids
    ]
    return Result(name, len(given) - len(failed), tuple(failed))


if __name__ == "__main__":
    results = [check_family(path) for path in sorted(Path(sys.argv[1]).glob("ggml-vocab-*.gguf"))]
    print(*results, sep="\n")
    sys.exit(any(r.failed for r in results))
