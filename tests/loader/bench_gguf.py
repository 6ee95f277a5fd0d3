"""How long a GGUF file takes to open: `python -m tests.loader.bench_gguf [FILE]`, best of nine."""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ternrun.loader.gguf.file import StringArray, open_gguf
from tests.fuzz.build import Array, f32, gguf


def _made(folder: str) -> Path:
    """A file with 128,256 tokens and 280,147 merges, as Llama 3 has them."""
    tokens = tuple(f"Ġt{i}é"[: 2 + i % 9] for i in range(128_256))
    merges = tuple(f"Ġa{i % 999} b{i}"[: 5 + i % 9] for i in range(280_147))
    metadata: dict[str | bytes, tuple[str | int, Any]] = {
        "tokenizer.ggml.tokens": ("string", Array("string", tokens)),
        "tokenizer.ggml.token_type": ("i32", Array("i32", (1,) * len(tokens))),
        "tokenizer.ggml.merges": ("string", Array("string", merges)),
    }
    path = Path(folder) / "made.gguf"
    path.write_bytes(gguf(metadata, [f32(f"t{i}") for i in range(300)]).data)
    return path


def _best(call: Callable[[], object]) -> float:
    """Milliseconds of the fastest of nine calls."""
    times = []
    for _ in range(9):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def main() -> None:
    """Print the time to open the file and to decode each of its string arrays."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else _made(folder)
        model = open_gguf(path)
        print(f"{platform.processor() or platform.machine()}: {path.name}, {model.size / 1e6:.1f} MB")
        print(f"open: {_best(lambda: open_gguf(path)):.1f} ms, {len(model.tensors)} tensors")
        for key, value in model.metadata.items():
            if isinstance(value, StringArray):
                print(f"{key}: {len(value)} strings decoded in {_best(value.tolist):.1f} ms")


if __name__ == "__main__":
    main()
