"""What guessing ahead gains on real text: `python -m tests.bench.guessing MODEL [--humaneval FILE] [--edit FILE...]`.

Greedy completions with and without guesses, in turn; the tokens must be the same. Prompts are HumanEval's, and files to
be written once more, as one does in edits.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from ternrun import Completion, Model, load

TOKENS, TURNS = 96, 3
AGAIN = "\n\n# The same file again, with type hints:\n\n"


def prompts(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Name and text of each."""
    if args.humaneval:
        for line in args.humaneval.read_text().splitlines()[: args.problems]:
            problem = json.loads(line)
            yield problem["task_id"], problem["prompt"]
    for path in args.edit:
        text = path.read_text()
        yield path.name, text + AGAIN + text[:80]


def timed(model: Model, prompt: str) -> tuple[float, Completion]:
    """Seconds of a completion, the prompt found in the cache."""
    start = time.perf_counter()
    done = model.complete(prompt, max_tokens=TOKENS)
    return time.perf_counter() - start, done


def main() -> None:
    """Print a line a prompt: how many times as fast, and the median over all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--humaneval", type=Path)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--edit", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    ratios = []
    with load(args.model) as guessing, load(args.model, speculate=False) as plain:
        for name, prompt in prompts(args):
            turns = []
            for _ in range(TURNS + 1):
                (with_guesses, a), (without, b) = timed(guessing, prompt), timed(plain, prompt)
                if a.text != b.text:
                    sys.exit(f"{name}: guessing changed the result")
                turns.append(without / with_guesses)
            ratios.append(median(turns[1:]))
            print(f"{ratios[-1]:5.2f}  {name}", flush=True)
    print(f"{median(ratios):5.2f}  median of {len(ratios)}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
