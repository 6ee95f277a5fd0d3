"""The command line itself: help, errors, exit codes, and how little it imports."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ternrun import cli
from ternrun.errors import KernelError, LoadError

HEAVY = {"numpy", "numba", "llvmlite", "torch", "onnx", "aiohttp", "gguf", "tokenizers", "jinja2", "huggingface_hub"}


def run_python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env, check=False)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], int]], int]:
    """Runs a body as if it were the command `inspect`."""

    def run(body: Callable[[Any], int]) -> int:
        module = ModuleType("ternrun.commands.inspect", "A body.")
        module.EXAMPLES, module.add_arguments, module.run = "", lambda parser: None, body  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return cli.main(["inspect"])

    return run


def raiser(error: BaseException) -> Callable[[Any], int]:
    def body(args: Any) -> int:
        raise error

    return body


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)


def test_every_command_is_in_the_table() -> None:
    folder = Path(cli.__file__).parent / "commands"
    files = {f"ternrun.commands.{p.stem}" for p in folder.glob("*.py") if "def run(args" in p.read_text()}
    assert files <= {module for module, _ in cli.COMMANDS.values()}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"ternrun {name} " in out.split("examples:")[1]
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_imports_nothing_heavy(argv: list[str]) -> None:
    code = f"""
import atexit, sys, ternrun.cli
atexit.register(lambda: print('LOADED', *sys.modules))
ternrun.cli.main({argv})
"""
    start = time.perf_counter()
    done = run_python(code)
    print(f"ternrun {' '.join(argv)}: {time.perf_counter() - start:.3f} s, interpreter start included")
    assert done.returncode == 0, done.stderr
    assert HEAVY.isdisjoint(done.stdout.split("LOADED")[1].split())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["pul"], "there is no command 'pul'; did you mean 'pull'?"),
        (["frobnicate"], "there is no command 'frobnicate'"),
        (["pull", "--to"], "argument --to: expected one argument"),
        (["pull", "a/b", "--frob"], "unrecognized arguments: --frob"),
        (["complete", "-m", "x", "-n", "many", "hi"], "invalid int value: 'many'"),
        (["complete", "-m", "x", "--logit-bias", "7", "hi"], "'7' is not ID=VALUE"),
    ],
)
def test_a_wrong_call_is_one_sentence(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("ternrun: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (LoadError("x.gguf is empty"), 2, "x.gguf is empty"),
        (LoadError("x.gguf has \x1b]0;owned\x07\x1b[2J\x9b1m"), 2, "x.gguf has \ufffd]0;owned\ufffd\ufffd[2J\ufffd1m"),
        (KernelError("no machine code"), 1, "no machine code"),
        (FileNotFoundError(2, "No such file or directory", "x.txt"), 2, "x.txt: No such file or directory"),
        (MemoryError(), 2, "not enough memory"),
        (ZeroDivisionError("oh"), 1, "a fault of ours, please report it: ZeroDivisionError: oh (TERNRUN_DEBUG=1"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    error: BaseException, code: int, message: str, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(raiser(error)) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == (1 if message else 0)


def test_debug_shows_the_traceback(command: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERNRUN_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        command(raiser(ZeroDivisionError()))


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = f"""
import subprocess, sys
writer = subprocess.Popen([{sys.executable!r}, '-m', 'ternrun'], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
writer.stdout.close()
err = writer.stderr.read().decode()
print(writer.wait(), repr(err))
"""
    assert run_python(code).stdout.strip() == "0 ''"


def test_a_terminal_without_utf8_shows_what_it_can() -> None:
    code = "from ternrun import cli; import sys; cli.main([]); print('\\u00e9')"
    done = run_python(code, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("?\n")


@pytest.mark.skipif(os.name == "nt", reason="descriptors are closed by a POSIX shell")
@pytest.mark.parametrize(
    ("call", "code", "told"),
    [
        ("tokenize code-9m x >&-", 0, ""),
        ("tokenize code-9m <&-", 0, "endoftext"),
        ("tokenize code-9m --nonsense 2>&-", 2, ""),
        ("tokenize code-9m x <&- >&- 2>&-", 0, ""),
    ],
)
def test_closed_streams_are_no_fault(call: str, code: int, told: str) -> None:
    shell = ["sh", "-c", f"'{sys.executable}' -m ternrun {call}"]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    assert told in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("call", ["--version", "--help", "complete --help", "tokenize code-9m x"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_sentence(call: str, unbuffered: str) -> None:
    command = [sys.executable, "-m", "ternrun", *call.split()]
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (2, "ternrun: error: input or output: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize(("call", "code"), [("--version", 0), ("nosuch", 2), ("inspect nosuch.gguf", 2)])
def test_an_error_that_cannot_be_written_keeps_its_code(call: str, code: int) -> None:
    command = [sys.executable, "-m", "ternrun", *call.split()]
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(command, stderr=full, stdout=subprocess.DEVNULL, check=False).returncode == code


def test_a_pipe_gets_utf8_whatever_the_locale() -> None:
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert run_python("from ternrun import cli; cli.main([]); print('\\u00e9')", **env).stdout.endswith("\u00e9\n")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["a.gguf", "--json"], ["a.gguf", None]),
        (["a.gguf", "--json", "--", "-x"], ["a.gguf", "-x"]),
        (["-m", "a.gguf", "--json", "--", "--json"], ["a.gguf", "--json"]),
        (["a.gguf", "--"], ["a.gguf", None]),
    ],
)
def test_words_behind_two_dashes_are_no_flags(argv: list[str], words: list[str | None]) -> None:
    parsed = cli.command_parser("tokenize").parse(argv)
    assert [parsed.model, parsed.text] == words
    assert parsed.json == ("--json" in argv[: argv.index("--")] if "--" in argv else True)


def test_no_flag_takes_a_word_from_behind_two_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["tokenize", "a", "--pre", "--", "-x"])
    assert "argument --pre: expected one argument" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["tokenize", "a", "--", "-x", "-y"])
    assert "unrecognized arguments: -y; text of several words goes in quotes (" in capsys.readouterr().err
