"""Evaluate a model file in the runtime: bits per byte and accuracy on held-out text, and tasks in Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ternrun.api import Model, load
from ternrun.errors import UsageError
from ternrun.perplexity import windows
from ternrun.train import codetasks
from ternrun.train import tokenizer as tokenizers
from ternrun.train.data.tokenfile import open_tokens, read_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """What to measure, and on how much."""

    part: str = "holdout"
    text_bytes: int = 200_000
    functions: int = 200
    lines: int = 200
    humaneval: Path | None = None  # runs generated code


def texts_of(folder: Path, part: str) -> list[str]:
    """The documents of a data folder's part."""
    manifest = read_manifest(folder)
    tokenizer = tokenizers.load(folder / "tokenizer.json")
    tokens = open_tokens(folder, part, manifest)
    end = tokenizer.token_to_id(tokenizers.END)
    stops = (tokens == end).nonzero()[0]
    starts = [0, *(stops + 1)]
    return [tokenizer.decode(tokens[a:b].tolist()) for a, b in zip(starts, stops, strict=False)]


def evaluate(path: Path, data: Path, tasks: Tasks, threads: int = 0) -> dict[str, str]:
    """Name -> number of everything asked for. Raises LoadError, UsageError."""
    texts = texts_of(data, tasks.part)
    results: dict[str, str] = {}
    with load(path, threads=threads) as model:
        bits, accuracy, size = text_score(model, texts, tasks.text_bytes)
        results |= {"bits per byte": f"{bits:.4f}", "token accuracy": f"{accuracy:.4f}", "bytes scored": str(size)}
        if tasks.functions:
            headers = codetasks.function_headers(texts, tasks.functions)
            share = codetasks.parse_share(model, headers)
            results["bodies that parse"] = f"{share:.3f} of {len(headers)}"
        if tasks.lines:
            results["exact lines"] = f"{codetasks.line_share(model, texts, tasks.lines):.3f} of {tasks.lines}"
        if tasks.humaneval:
            problems = codetasks.read_problems(tasks.humaneval)
            results["HumanEval pass@1"] = f"{codetasks.human_eval(model, problems):.4f} of {len(problems)}"
    return results


def text_score(model: Model, texts: Sequence[str], limit: int, window: int = 512) -> tuple[float, float, int]:
    """(bits per byte, next-token accuracy, bytes scored) over texts up to `limit` bytes, each token scored once."""
    bits, right, tokens, size = 0.0, 0, 0, 0
    for text in texts:
        ids = model.tokenizer.encode(text, special=False, bos=False)
        for part in windows(len(ids), min(window, model.context)):
            scores = model.score(ids[part.start : part.end], top=1)[part.scored - part.end :]
            wanted = ids[part.end - len(scores) : part.end]
            bits -= math.fsum(s.logprob for s in scores) / math.log(2)
            right += sum(s.top[0].id == i for s, i in zip(scores, wanted, strict=True))
            tokens += len(scores)
            size += sum(len(model.tokenizer.token_bytes(i)) for i in wanted)
        if size >= limit:
            break
    if not tokens:
        raise UsageError("there is no held-out text to score")
    return bits / size, right / tokens, size
