"""Tasks that tell how well a model writes Python: finish a function, finish a line, pass HumanEval's tests.

Models are `ternrun.api.Model`s, so what is measured is the exported file in the runtime that users run. No prompt ends
with a line end: tokenizers for code join it with the indentation that follows, so that is for the model to write.
"""

from __future__ import annotations

import ast
import json
import random
import textwrap
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ternrun.api import Model
from ternrun.completion import Completion
from ternrun.errors import LoadError
from ternrun.progress import Progress
from ternrun.train.data.syntax import parsed, source_lines
from ternrun.train.evaluate.sandbox import succeeds

_STOP = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n@", "\nassert ", "\nimport ", "\nfrom ")
_AT_ONCE = 8  # prompts


@dataclass(frozen=True, slots=True)
class Problem:
    """One HumanEval problem (arXiv 2107.03374)."""

    name: str
    prompt: str
    entry: str
    test: str


def function_headers(texts: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """`count` different headers with docstring, dedented, drawn at random from all functions of Python sources.

    No header is left out for what a model makes of it: only those that no body could complete (text whose indentation
    a dedent breaks), that are longer than 1000 characters, or whose function has nothing after its docstring.
    """
    found = sorted({header for text in texts for header in _headers(text)})
    random.Random(seed).shuffle(found)
    return found[:count]


def _headers(text: str) -> Iterator[str]:
    if (tree := parsed(text)) is None:
        return
    lines = source_lines(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) and len(node.body) > 1:
            header = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.body[0].end_lineno]))
            if len(header) <= 1000 and has_body(f"{header}\n{_indentation(header)}pass\n"):
                yield header


def _indentation(header: str) -> str:
    last = header.split("\n")[-1]
    return last[: len(last) - len(last.lstrip())] or "    "


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


def has_body(program: str) -> bool:
    """Is this Python that begins with a function, which does more than its docstring says?"""
    tree = parsed(program)
    if tree is None or not tree.body:
        return False
    first = tree.body[0]
    return isinstance(first, ast.FunctionDef | ast.AsyncFunctionDef) and len(first.body) > 1


def bodies(model: Model, headers: Sequence[str], max_tokens: int = 128, *, repeat_penalty: float = 1.0) -> list[str]:
    """Greedy completions of headers, cut at the first dedent."""
    made = completions(model, headers, max_tokens, repeat_penalty=repeat_penalty)
    return [body_of(done.text, finished=done.finish_reason == "stop") for done in made]


def complete(model: Model, prompt: str, max_tokens: int, **sampling: Any) -> Completion:
    """Greedy, whatever the model's file recommends, unless `sampling` says otherwise.

    The beginning of a prompt that leaves the context no room for `max_tokens` is cut off.
    """
    sampling = {"temperature": 0.0, "repeat_penalty": 1.0} | sampling
    ids, room = model.tokenizer.encode(prompt), max(1, model.context - max_tokens)
    return model.complete(prompt if len(ids) <= room else ids[-room:], max_tokens=max_tokens, **sampling)


def completions(
    model: Model, prompts: Sequence[str], max_tokens: int, stop: Sequence[str] = (), **sampling: Any
) -> list[Completion]:
    """Greedy completions, several at a time: the runtime computes them together."""
    made = []
    with ThreadPoolExecutor(_AT_ONCE) as pool, Progress("completing", "texts") as progress:
        for done in pool.map(lambda prompt: complete(model, prompt, max_tokens, stop=stop, **sampling), prompts):
            made.append(done)
            progress.update(len(made), len(prompts))
    return made


def line_share(model: Model, texts: Sequence[str], count: int, seed: int = 0, context: int = 1000) -> float:
    """Share of held-out lines that greedy completion gives exactly, from up to `context` characters before them."""
    split = [text.split("\n") for text in texts]
    places = [(lines, i) for lines in split for i, line in enumerate(lines) if i > 5 and len(line.strip()) > 3]
    chosen = random.Random(seed).sample(places, min(count, len(places)))
    prompts = ["\n".join(lines[:i]).rstrip("\n")[-context:] for lines, i in chosen]
    made = completions(model, prompts, 48)
    good = sum(
        done.text.lstrip("\n").split("\n")[0].rstrip() == lines[i].rstrip()
        for done, (lines, i) in zip(made, chosen, strict=True)
    )
    return good / max(1, len(chosen))


def read_problems(path: Path) -> list[Problem]:
    """HumanEval.jsonl. Raises LoadError."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        return [Problem(row["task_id"], row["prompt"], row["entry_point"], row["test"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadError(f"{path} is not HumanEval.jsonl: {error}") from None


def human_eval(model: Model, problems: Sequence[Problem], max_tokens: int = 256) -> float:
    """pass@1 of greedy completions. Runs generated code: see `sandbox`."""
    prompts = [problem.prompt.rstrip("\n") for problem in problems]
    passed = sum(
        succeeds(f"{prompt}{done.text}\n{problem.test}\ncheck({problem.entry})\n")
        for prompt, done, problem in zip(prompts, completions(model, prompts, max_tokens, _STOP), problems, strict=True)
    )
    return passed / max(1, len(problems))
