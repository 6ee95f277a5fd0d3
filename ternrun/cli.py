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
from importlib import import_module
from typing import Any, NoReturn

COMMANDS = {  # name: (module, summary)
    "complete": ("ternrun.commands.complete", "complete text, streaming to the terminal"),
    "chat": ("ternrun.commands.chat", "talk with a model in the terminal, or with a server's"),
    "serve": ("ternrun.commands.serve", "serve a model over HTTP: OpenAI's, llama.cpp's and Ollama's routes"),
    "inspect": ("ternrun.commands.inspect", "show what is in a model file, and what of it cannot be run"),
    "eval": ("ternrun.commands.eval", "perplexity of a text, or log-probabilities of token ids"),
    "tokenize": ("ternrun.commands.tokenize", "turn text into a model's token ids"),
    "detokenize": ("ternrun.commands.detokenize", "turn token ids back into text"),
    "convert": ("ternrun.commands.convert", "write a GGUF file from another model file"),
    "pull": ("ternrun.commands.pull", "download a model from the Hugging Face hub"),
    "warm": ("ternrun.commands.warm", "compile kernels ahead, so that the first run starts at once"),
    "bench": ("ternrun.commands.bench", "measure speed: this machine, the kernels, a model"),
    "train": ("ternrun.train.cli", "train a ternary model from text and export it"),
}

EXAMPLES = """\
examples:
  ternrun pull HuggingFaceTB/SmolLM2-135M-Instruct-GGUF
  ternrun complete -m model.gguf "def fibonacci(n):"
  ternrun inspect model.gguf

`ternrun COMMAND --help` explains a command and its flags.
"""


WORD = "\0"  # before what stands behind `--`; no argument can hold it


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one sentence, and whose positionals may stand among the flags."""

    nested = False

    def add_subparsers(self, **kwargs: Any) -> Any:
        """As argparse has it; commands of a command rule out positionals among the flags."""
        self.nested = True
        return super().add_subparsers(**kwargs)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse a command's arguments."""
        if self.nested:
            return self.parse_args(arguments)
        given = list(arguments)
        if "--" in given:  # argparse forgets it between its pass for flags and that for words
            end = given.index("--")
            given[end:] = [WORD + word for word in given[end + 1 :]]
        return self.parse_intermixed_args(given)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if action.option_strings and arg_string.startswith(WORD):
            raise argparse.ArgumentError(action, "expected one argument")
        return super()._get_value(action, arg_string.removeprefix(WORD))

    def error(self, message: str) -> NoReturn:
        """Print the complaint and exit with code 2."""
        complain(f"{message.replace(WORD, '')} (try `{self.prog} --help`)")
        raise SystemExit(2)


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
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def command_parser(name: str) -> Parser:
    """The parser of one command: its module's docstring, flags and examples."""
    body = import_module(COMMANDS[name][0])
    parser = Parser(
        prog=f"ternrun {name}",
        description=paragraphs(body.__doc__ or ""),
        epilog=body.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    body.add_arguments(parser)
    parser.set_defaults(run=body.run)
    return parser


def paragraphs(text: str) -> str:
    """The text's paragraphs, filled to the terminal's width."""
    from shutil import get_terminal_size
    from textwrap import fill

    width = min(get_terminal_size().columns - 2, 110)
    return "\n\n".join(fill(paragraph, max(width, 40)) for paragraph in text.split("\n\n"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code. Whatever goes wrong becomes one sentence on stderr."""
    prepare_streams()
    ours = ends_by_sigterm()
    try:
        code = obey(argv)
        sys.stdout.flush()  # a reader that went away shows here, not in the interpreter's last words
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("TERNRUN_DEBUG"):
            raise
        code, sentence = explain(error)
        complain(sentence)
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return code


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


def obey(argv: Sequence[str] | None) -> int:
    """Run the command that is named; returns the exit code."""
    parser = top_parser()
    args = parser.parse_args(argv)
    if args.version:
        from importlib.metadata import version

        print(f"ternrun {version('ternrun')}")
        return 0
    if args.command is None:
        parser.print_help()
        return 0
    if args.command not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(args.command, COMMANDS, 1)
        parser.error(f"there is no command {args.command!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    parsed = command_parser(args.command).parse(args.arguments)
    code: int = parsed.run(parsed)
    return code


def complain(sentence: str) -> None:
    """One sentence on stderr. It may quote a file or a server, which must not drive the user's terminal by that."""
    from ternrun.commands.terminal import safe

    sys.stderr.write(f"ternrun: error: {safe(sentence)}\n")


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
