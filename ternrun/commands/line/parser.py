"""An argument parser that reads other programs' flags, too, and whose complaint is one sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from ternrun.errors import UsageError

WORD = "\0"  # before what stands behind `--`; no argument can hold it


class Parser(argparse.ArgumentParser):
    """Positionals may stand among the flags; `settle` adds what decides about them once all of them are known."""

    translates = True  # other programs' flags; completion in a shell looks at half a line, and leaves it as it is

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"allow_abbrev": False})
        self.nested = False
        self.settlers: list[Callable[[argparse.Namespace], None]] = []
        self.surplus = ""  # what to do about words that are too many

    def add_subparsers(self, **kwargs: Any) -> Any:
        """As argparse has it; commands of a command rule out positionals among the flags."""
        self.nested = True
        return super().add_subparsers(**kwargs)

    def flags(self) -> dict[str, bool]:
        """The flags, and whether a value follows each."""
        return {name: action.nargs != 0 for name, action in self._option_string_actions.items()}

    def settle(self, decide: Callable[[argparse.Namespace], None]) -> None:
        """Call `decide` with the parsed arguments; it changes them, or raises UsageError."""
        self.settlers.append(decide)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse a command's arguments. Raises UsageError for words that do not fit each other."""
        if self.nested:
            return self.parse_args(arguments)
        given = list(arguments)
        if "--" in given:  # argparse forgets it between its pass for flags and that for words
            end = given.index("--")
            given[end:] = [WORD + word for word in given[end + 1 :]]
        args, rest = self.parse_known_intermixed_args(given)
        if rest:
            flags = any(word.startswith("-") for word in rest)
            self.error(f"unrecognized arguments: {' '.join(rest)}{'' if flags else self.surplus}")
        for decide in self.settlers:
            decide(args)
        return args

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it, after other programs' flags were put in our words."""
        args = sys.argv[1:] if args is None else args
        if self.translates and not self.nested:
            args = self._translated(args)
        return super().parse_known_args(args, namespace)

    def _translated(self, args: Sequence[str]) -> list[str]:
        from ternrun.commands.line.rewrite import rewrite

        try:
            written, notes = rewrite(args, self.flags())
        except UsageError as error:
            self.error(str(error))
        for note in notes:
            sys.stderr.write(f"ternrun: {note}\n")
        return written

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if action.option_strings and arg_string.startswith(WORD):
            raise argparse.ArgumentError(action, "expected one argument")
        return super()._get_value(action, arg_string.removeprefix(WORD))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices: Iterable[Any] | None = action.choices
        if choices is not None and value not in choices:
            known = [str(choice) for choice in choices]
            hint = near(str(value), known) or f"; it is one of {', '.join(known)}"
            raise argparse.ArgumentError(action, f"{value!r} is not known{hint}")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Raises OSError where argparse's own keeps silent, as on a full disk."""
        (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        """Print the complaint and exit with code 2."""
        complain(f"{message.replace(WORD, '')} (try `{self.prog} --help`)")
        raise SystemExit(2)


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, where one of the known words is near."""
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def complain(sentence: str) -> None:
    """One sentence on stderr. It may quote a file or a server, which must not drive the user's terminal by that."""
    from contextlib import suppress

    from ternrun.commands.terminal import safe

    with suppress(OSError):  # the exit code remains where nobody can read the sentence
        sys.stderr.write(f"ternrun: error: {safe(sentence)}\n")
