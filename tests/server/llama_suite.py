"""llama.cpp's own tests of its server, run against ours: they start what they take for llama-server.

    python -m tests.server.llama_suite path/to/llama.cpp -m model.gguf [--python path/to/venv/bin/python]

The checkout needs tools/server/tests and models/templates; `--python` has the former's requirements.txt installed. The
suite expects a model of its own that tells stories and counts that model's tokens: with any other, those checks fail,
and say nothing of us. Whatever model a test asks for, it gets the one given here. What the tests' flags mean to us
stands in `llama_flags`.
Prints how many tests of each file passed, and for each that did not, the line that failed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

FILES = ("basic", "completion", "chat_completion", "stream", "tokenize", "security", "infill", "template", "slot_save",
         "ctx_shift", "ignore_eos")  # fmt: skip
ROOT = Path(__file__).parents[2]


def launcher(folder: Path, model: str) -> Path:
    """A program that takes llama-server's flags and is ternrun."""
    path = folder / "llama-server"
    called = f"{shlex.quote(sys.executable)} -P -m tests.server.llama_flags {shlex.quote(str(Path(model).resolve()))}"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {called} "$@"\n')
    path.chmod(0o755)
    return path


def run(tests: Path, name: str, python: str, model: str, port: int) -> list[tuple[str, str]]:
    """(test, why it failed) of one file; no reason where it passed. Tests that skip themselves are left out."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"unit/test_{name}.py",
            f"--junitxml={report}",
        ]
        binary = launcher(Path(folder), model)
        environment = os.environ | {"LLAMA_SERVER_BIN_PATH": str(binary), "PORT": str(port)}
        environment.pop("PYTHONPATH", None)
        subprocess.run(command, cwd=tests, env=environment, stdout=subprocess.DEVNULL, check=False, timeout=3000)
        cases = ElementTree.parse(report).getroot().iter("testcase")
        return [(case.get("name", ""), _why(case)) for case in cases if case.find("skipped") is None]


def _why(case: ElementTree.Element) -> str:
    failure = case.find("failure") if case.find("error") is None else case.find("error")
    if failure is None:
        return ""
    lines = (failure.text or "").splitlines()
    line = next((line[1:].strip() for line in reversed(lines) if line.startswith(">")), "")
    what = next((line[1:].strip() for line in lines if line.startswith("E ")), failure.get("message", ""))
    return f"{line}   # {what}"[:200]


def report(name: str, results: Sequence[tuple[str, str]]) -> int:
    """Print them; returns how many passed."""
    passed = sum(not why for _, why in results)
    print(f"{name}: {passed} of {len(results)}", flush=True)
    for test, why in results:
        if why:
            print(f"    {test}: {why}")
    return passed


def main() -> int:
    """Always 0: not everything there is meant for us."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--files", default=",".join(FILES))
    parser.add_argument("--port", type=int, default=8080)
    args = parser.parse_args()
    tests = args.checkout / "tools/server/tests"
    passed = total = 0
    for name in args.files.split(","):
        results = run(tests, name, args.python, args.model, args.port)
        passed, total = passed + report(name, results), total + len(results)
    print(f"{passed} of {total}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
