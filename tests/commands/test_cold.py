"""The first run on a machine, as processes of their own with an empty cache: what it tells, and how it is ended."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TERNRUN = [sys.executable, "-m", "ternrun"]
LINE = b"ternrun: compiling kernels for this CPU, this once"


@pytest.fixture
def cold(tmp_path: Path) -> dict[str, str]:
    """An environment whose cache is empty."""
    return {**os.environ, "TERNRUN_CACHE": str(tmp_path / "cache"), "TERNRUN_ISA": "portable"}


def begun(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A command that compiles; its line has been read."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([*TERNRUN, *arguments], env=environment, stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stderr
    while not (line := process.stderr.readline()).startswith(LINE):
        assert line.startswith(b"ternrun: listening"), line + process.stderr.read()
    time.sleep(0.5)  # compilers start
    return process


def leftovers(environment: dict[str, str]) -> Iterator[str]:
    """Files that are no whole kernel, and compilers that still work for this cache."""
    cache = Path(environment["TERNRUN_CACHE"])
    yield from (path.name for path in cache.rglob(".*") if path.is_file())
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"ternrun.runtime.cpu.compile.build" in command and os.fsencode(cache) in command:
            yield command.decode()


@pytest.mark.parametrize(
    ("arguments", "number", "code", "last"),
    [
        (["complete", "hi"], signal.SIGINT, 130, b""),
        (["complete", "hi"], signal.SIGTERM, 143, b""),
        (["chat", "--plain"], signal.SIGTERM, 143, b""),
        (["serve", "--port", "0"], signal.SIGINT, 0, b"ternrun: shutting down\n"),
        (["serve", "--port", "0"], signal.SIGTERM, 0, b"ternrun: shutting down\n"),
    ],
)
def test_compiling_ends_with_the_command(
    arguments: list[str], number: int, code: int, last: bytes, cold: dict[str, str]
) -> None:
    process = begun(arguments, cold)
    start = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (code, b"", last)
    assert time.monotonic() - start < 10
    assert not [*leftovers(cold)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_compilers_do_not_outlive_a_killed_command(cold: dict[str, str]) -> None:
    process = begun(["complete", "hi"], cold)
    process.kill()
    process.communicate()
    end = time.monotonic() + 30  # of the kernel that each is at
    while any("build" in left for left in leftovers(cold)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not [left for left in leftovers(cold) if "build" in left]


def test_a_terminals_ctrl_c_gets_no_word_from_compilers(cold: dict[str, str]) -> None:
    """The line shows at once, and is wiped; every process of the foreground gets the signal."""
    pid, terminal = pty.fork()
    if pid == 0:  # the new process, on a terminal of its own
        os.execve(sys.executable, [*TERNRUN, "complete", "hi"], cold)
    shown = b""
    while b"kernels" not in shown.partition(b"this once")[2]:
        shown += os.read(terminal, 4096)
    time.sleep(0.5)
    os.write(terminal, b"\x03")
    try:
        while more := os.read(terminal, 4096):
            shown += more
    except OSError:  # the other end is closed
        pass
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert b"compiling kernels for this CPU, this once" in shown
    assert b"0/" in shown
    assert b"left" not in shown  # nobody can know yet
    assert b"Traceback" not in shown
    assert b"error" not in shown


def test_what_is_warm_compiles_no_more(cold: dict[str, str]) -> None:
    del cold["TERNRUN_ISA"]  # as users have it, and less to compile than for any CPU

    def done(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*TERNRUN, *arguments], env=cold, capture_output=True, text=True, check=True)

    first = done("warm")
    lines = first.stderr.splitlines()
    assert [line.startswith(LINE.decode()) for line in lines] == [True, True]  # where it begins and where it ends
    assert first.stdout.startswith("compiled ")
    again = done("warm", "--json")
    assert json.loads(again.stdout)["compiled"] == []
    assert again.stderr == ""
    assert done("warm").stdout.startswith("all kernels are there already: ")
    assert done("complete", "def f(", "-n", "4", "--temp", "0.7", "--seed", "1").stderr == ""
    assert done("complete", "def f(", "-n", "4").stderr == ""
    process = subprocess.Popen([*TERNRUN, "serve", "--port", "0"], env=cold, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    assert process.stderr.readline().startswith("ternrun: listening")
    assert process.stderr.readline().startswith("ternrun: ready")
    process.terminate()
    process.communicate()


def test_warm_wants_a_place(cold: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    done = subprocess.run([*TERNRUN, "warm"], env=cold, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot be kept" in done.stderr
    done = subprocess.run([*TERNRUN, "warm", "--all", "code-9m"], env=cold, capture_output=True, text=True, check=False)
    assert done.returncode == 2
