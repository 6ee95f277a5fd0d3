"""Python tasks: complete functions, complete lines, and pass HumanEval's tests.

Models are `ternrun.api.Model` instances, so the exported file is measured in the runtime. No prompt ends with a line
end: tokenizers for code join it with the indentation that follows, so the model must generate it.
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
from ternrun.train.data.syntax import parse, source_lines
from ternrun.train.evaluate.sandbox import succeeds

_STOP = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n@", "\nassert ", "\nimport ", "\nfrom ")
_PARALLEL = 8  # prompts


@dataclass(frozen=True, slots=True)
class Problem:
    """One HumanEval problem (arXiv 2107.03374)."""

    name: str
    prompt: str
    entry: str
    test: str


def function_headers(texts: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """Up to `count` random distinct function headers with docstring, dedented, from Python sources.

    Left out are headers of more than 1000 characters, of functions with nothing after the docstring, and those that no
    body could complete because dedenting breaks their indentation.
    """
    found = sorted({header for text in texts for header in _headers(text)})
    random.Random(seed).shuffle(found)
    return found[:count]


def _headers(text: str) -> Iterator[str]:
    if (tree := parse(text)) is None:
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
    """A completion up to its first line without indentation, without its last line if unfinished."""
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
    """Whether a program parses and starts with a function that has more than a docstring."""
    tree = parse(program)
    if tree is None or not tree.body:
        return False
    first = tree.body[0]
    return isinstance(first, ast.FunctionDef | ast.AsyncFunctionDef) and len(first.body) > 1


def bodies(model: Model, headers: Sequence[str], max_tokens: int = 128, *, repeat_penalty: float = 1.0) -> list[str]:
    """Greedy completions of headers, cut at the first dedent."""
    made = completions(model, headers, max_tokens, repeat_penalty=repeat_penalty)
    return [body_of(done.text, finished=done.finish_reason == "stop") for done in made]


def complete(model: Model, prompt: str, max_tokens: int, **sampling: Any) -> Completion:
    """Complete greedily, whatever the model's file recommends, except for the options in `sampling`.

    A prompt that leaves no room for `max_tokens` in the context loses its beginning.
    """
    sampling = {"temperature": 0.0, "repeat_penalty": 1.0} | sampling
    ids, room = model.tokenizer.encode(prompt), max(1, model.context - max_tokens)
    return model.complete(prompt if len(ids) <= room else ids[-room:], max_tokens=max_tokens, **sampling)


def completions(
    model: Model, prompts: Sequence[str], max_tokens: int, stop: Sequence[str] = (), **sampling: Any
) -> list[Completion]:
    """Greedy completions of several prompts, computed as a batch."""
    results = []
    with ThreadPoolExecutor(_PARALLEL) as pool, Progress("completing", "texts") as progress:
        for done in pool.map(lambda prompt: complete(model, prompt, max_tokens, stop=stop, **sampling), prompts):
            results.append(done)
            progress.update(len(results), len(prompts))
    return results


def line_share(model: Model, texts: Sequence[str], count: int, seed: int = 0, context: int = 1000) -> float:
    """Share of held-out lines that greedy completion reproduces, from up to `context` characters before them."""
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
    """Read HumanEval.jsonl. Raises LoadError."""
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
