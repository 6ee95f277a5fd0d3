"""Tasks that tell how well a model writes Python: finish a function, finish a line, pass HumanEval's tests.

Models are `ternrun.api.Model`s, so what is measured is the exported file in the runtime that users run. No prompt ends
with a line end: tokenizers for code join it with the indentation that follows, so that is for the model to write.
"""

from __future__ import annotations

import ast
import json
import random
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ternrun.api import Model
from ternrun.errors import LoadError
from ternrun.train.sandbox import succeeds

_STOP = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n@", "\nassert ", "\nimport ", "\nfrom ")


@dataclass(frozen=True, slots=True)
class Problem:
    """One HumanEval problem (arXiv 2107.03374)."""

    name: str
    prompt: str
    entry: str
    test: str


def function_headers(texts: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """`count` headers with docstring out of Python sources, dedented."""
    found = [header for text in texts for header in _headers(text)]
    random.Random(seed).shuffle(found)
    return found[:count]


def _headers(text: str) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    lines = text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) and len(node.body) > 1:
            header = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.body[0].end_lineno]))
            if len(header) <= 1000:
                yield header


def body_of(completion: str, *, finished: bool) -> str:
    """A completion up to its first line without indentation; an unfinished last line is left out."""
    lines = completion.split("\n")
    if not finished and len(lines) > 1:
        lines = lines[:-1]
    kept = []
    for line in lines:
        if line.strip() and not line[0].isspace():
            break
        kept.append(line)
    return "\n".join(kept) + "\n"


def parses(program: str) -> bool:
    """Is this Python?"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def parse_share(model: Model, headers: Sequence[str], max_tokens: int = 128) -> float:
    """Share of greedy completions that parse with their header, cut at the first dedent, and have a body."""
    good = 0
    for header in headers:
        done = model.complete(header, max_tokens=max_tokens)
        body = body_of(done.text, finished=done.finish_reason == "stop")
        good += bool(body.strip()) and parses(header + body)
    return good / max(1, len(headers))


def line_share(model: Model, texts: Sequence[str], count: int, seed: int = 0, context: int = 1000) -> float:
    """Share of held-out lines that greedy completion gives exactly, from up to `context` characters before them."""
    places = [(text, i) for text in texts for i, line in enumerate(text.split("\n")) if i > 5 and len(line.strip()) > 3]
    good = 0
    chosen = random.Random(seed).sample(places, min(count, len(places)))
    for text, i in chosen:
        lines = text.split("\n")
        prompt = "\n".join(lines[:i]).rstrip("\n")[-context:]
        done = model.complete(prompt, max_tokens=48)
        good += done.text.lstrip("\n").split("\n")[0].rstrip() == lines[i].rstrip()
    return good / max(1, len(chosen))


def read_problems(path: Path) -> list[Problem]:
    """HumanEval.jsonl. Raises LoadError."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [Problem(row["task_id"], row["prompt"], row["entry_point"], row["test"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadError(f"{path} is not HumanEval.jsonl: {error}") from None


def human_eval(model: Model, problems: Sequence[Problem], max_tokens: int = 256) -> float:
    """pass@1 of greedy completions. Runs generated code: see `sandbox`."""
    passed = 0
    for problem in problems:
        prompt = problem.prompt.rstrip("\n")
        done = model.complete(prompt, max_tokens=max_tokens, stop=_STOP)
        passed += succeeds(f"{prompt}{done.text}\n{problem.test}\ncheck({problem.entry})\n")
    return passed / max(1, len(problems))
