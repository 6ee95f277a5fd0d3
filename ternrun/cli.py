"""The `ternrun` command: finds the command that was named and runs it.

This file imports argparse and nothing heavier; a command's own body, with its flags, is imported when it runs, so
`ternrun --help` answers at once and `ternrun complete` never pays for what only another command needs.

Exit codes: 0 done, 1 a fault of ours, 2 the user's mistake, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from ternrun.commands.line.parser import Parser, complain, near
from ternrun.commands.names import ADVICE, COMMANDS, SAME, command_parser

EXAMPLES = """\
examples:
  ternrun complete "def fibonacci(n):"
  ternrun pull HuggingFaceTB/SmolLM2-135M-Instruct-GGUF
  ternrun chat model.gguf
  ternrun serve model.gguf

A MODEL is a file, a folder, or OWNER/NAME of the Hugging Face hub; TERNRUN_MODEL names the one that is used where
none is given. `ternrun help COMMAND` explains a command and its flags.
"""


def top_parser() -> Parser:
    """The parser of what stands before a command's own arguments."""
    width = max(map(len, COMMANDS))
    table = "\n".join(f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items())
    parser = Parser(
        prog="ternrun",
        usage="ternrun COMMAND [ARGUMENTS]",
        description="Run ternary (1.58-bit) and other language models on the CPU.",
        epilog=f"commands:\n{table}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.translates = False
    parser.add_argument("-v", "-V", "--version", action="store_true", help="print the version and exit")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code. Whatever goes wrong becomes one sentence on stderr."""
    prepare_streams()
    ours = ends_by_sigterm()
    try:
        try:
            return obey(argv)
        finally:
            sys.stdout.flush()  # a full disk, or a reader that went away, shows here and not in the interpreter
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        if os.environ.get("TERNRUN_DEBUG"):
            raise
        code, sentence = explain(error)
        complain(sentence)
        return code
    finally:
        release_streams()
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def ends_by_sigterm() -> bool:
    """Let SIGTERM end the command as Ctrl-C does, with what is open closed; False where somebody else handles it."""

    def end(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    try:
        ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if ours:
            signal.signal(signal.SIGTERM, end)
    except ValueError:  # not in the main thread
        return False
    return ours


def prepare_streams() -> None:
    """Let text be written to any of them, whatever the surroundings are."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by who started us; the next file would get its number
            from pathlib import Path

            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (until the end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 shows what it can
            stream.reconfigure(errors="replace")
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty() and "PYTHONIOENCODING" not in os.environ:
        sys.stdout.reconfigure(encoding="utf-8")  # pipes and files get what they are read as


def release_streams() -> None:
    """Send what cannot be written to nowhere: the interpreter flushes once more at its end, and fails loudly."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def obey(argv: Sequence[str] | None) -> int:
    """Run the command that is named; returns the exit code."""
    if "_ARGCOMPLETE" in os.environ:
        from ternrun.commands.completion import answer

        answer()
    given = list(sys.argv[1:] if argv is None else argv)
    word, rest = (given[0], given[1:]) if given else ("help", [])
    if word.startswith("-"):
        return before_command(given)
    if word == "version":
        return print_version()
    if word == "help":
        return print_help(rest)
    args = command_parser(command(word)).parse(rest)
    code: int = args.run(args)
    return code


def before_command(given: Sequence[str]) -> int:
    """Answer --help and --version; any other flag belongs behind a command."""
    parser = top_parser()
    if given[0] not in parser.flags():
        from shlex import join

        parser.error(f"a command comes first, as in: ternrun complete {join(given)}")
    parser.parse_args(given)
    return print_version()


def command(word: str) -> str:
    """The name of our command, also for what others call it. Ends with exit code 2 where there is none."""
    if word in COMMANDS:
        return word
    if word in SAME:
        return SAME[word]
    from ternrun.commands.line.words import is_model

    parser = top_parser()
    if word in ADVICE:
        return parser.error(f"there is no command {word!r}: {ADVICE[word]}")
    if is_model(word):
        return parser.error(f"a command comes first, as in: ternrun run {word}")
    return parser.error(f"there is no command {word!r}{near(word, [*COMMANDS, *SAME, 'help', 'version'])}")


def print_version() -> int:
    """Print the version that is installed."""
    from importlib.metadata import version

    print(f"ternrun {version('ternrun')}")
    return 0


def print_help(words: Sequence[str]) -> int:
    """Print the help of the command named, or of all."""
    named = [word for word in words if not word.startswith("-")]
    if not named or named[0] in ("help", "version"):
        top_parser().print_help()
        return 0
    parser = command_parser(command(named[0]))
    if parser.nested and named[1:]:
        parser.parse([*named[1:], "--help"])
    parser.print_help()
    return 0


def explain(error: Exception) -> tuple[int, str]:
    """The exit code and the sentence for what went wrong."""
    from ternrun.errors import KernelError, TernrunError

    if isinstance(error, TernrunError):
        return 1 if isinstance(error, KernelError) else 2, str(error)
    if isinstance(error, OSError) and error.strerror:
        return 2, f"{error.filename or 'input or output'}: {error.strerror}"
    if isinstance(error, MemoryError):
        return 2, "there is not enough memory for this model and context; a smaller --context takes less"
    kind = f"{type(error).__name__}: {error}".rstrip(": ")
    return 1, f"this is a fault of ours, please report it: {kind} (TERNRUN_DEBUG=1 shows where)"
