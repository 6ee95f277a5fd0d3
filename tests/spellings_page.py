"""docs/spellings.md, made from the tables that decide: `python -m tests.spellings_page` writes it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ternrun.commands.line.spellings import SPELLINGS, Idle, Refused, Same
from ternrun.commands.names import ADVICE, SAME

PAGE = Path(__file__).parent.parent / "docs/spellings.md"
INTRODUCTION = """\
What llama.cpp, Ollama, vLLM and Hugging Face's tools call their flags, and what ternrun takes each for.
A flag means the first of these that the command has. Underscores count as dashes: `--top_p` is `--top-p`."""
WHERE = {
    "--model": "", "--chat": "`complete`", "--plain": "`chat`", "--port": "`serve`", "--work": "`bench`",
}  # fmt: skip


def page() -> str:
    """The whole text."""
    rules = [(name, rule) for name, given in SPELLINGS.items() for rule in given]
    same = [(name, *_ours(rule)) for name, rule in rules if isinstance(rule, Same) and rule.flag != name]
    idle = [(name, _why(rule), WHERE[rule.where]) for name, rule in rules if isinstance(rule, Idle)]
    refused = [(name, rule.advice, WHERE[rule.where]) for name, rule in rules if isinstance(rule, Refused)]
    commands = [(name, f"`{ours}`", "") for name, ours in SAME.items()]
    commands += [(name, advice, "") for name, advice in ADVICE.items()]
    return (
        "\n".join(
            [
                "# Flags and commands of other programs",
                "",
                INTRODUCTION,
                "",
                *_table(("flag", "the same as", ""), same),
                "These change nothing. They are accepted, and standard error says why:",
                "",
                *_table(("flag", "why", "of"), idle),
                "These are refused, with what to do instead:",
                "",
                *_table(("flag", "instead", "of"), refused),
                "Commands:",
                "",
                *_table(("command", "the same as, or instead", ""), commands),
            ]
        ).rstrip()
        + "\n"
    )


def _ours(rule: Same) -> tuple[str, str]:
    if not rule.prefix:
        return f"`{rule.flag}`", ""
    return f"`{rule.flag} {rule.prefix}VALUE`", "`serve`" if rule.flag == "--default" else ""


def _why(rule: Idle) -> str:
    return f"{rule.why}; only {' and '.join(rule.only)}" if rule.only else rule.why


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, str, str]]) -> list[str]:
    """One row for all names that share the other cells."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for name, *rest in rows:
        grouped.setdefault((rest[0], rest[1]), []).append(f"`{name}`")
    wide = 3 if any(where for _, where in grouped) else 2
    cells = [(", ".join(names), *rest) for rest, names in grouped.items()]
    lines = [head, ("---",) * 3, *cells]
    return [*(f"| {' | '.join(line[:wide])} |" for line in lines), ""]


if __name__ == "__main__":
    PAGE.write_text(page())
