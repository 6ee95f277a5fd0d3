"""`ternrun completion`: the script that it writes, run by bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ASK = """
source <({python} -m ternrun completion bash)
line=$1 COMP_LINE=$1 COMP_POINT=${{#1}} COMP_TYPE=9 COMPREPLY=()
ternrun() {{ {python} -m ternrun "$@"; }}
export -f ternrun
_python_argcomplete ternrun
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ternrun com", {"complete", "completion"}),
        ("ternrun complete --max", {"--max-tokens"}),
        ("ternrun complete -m ", {"folder/", "tiny.gguf", "code-9m"}),
        ("ternrun serve t", {"tiny.gguf"}),
        ("ternrun show ", {"folder/", "tiny.gguf", "code-9m"}),
        ("ternrun train ex", {"export"}),
        ("ternrun help insp", {"inspect"}),
    ],
)
def test_bash_completes(line: str, expected: set[str], tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder").mkdir()
    script = ASK.format(python=sys.executable)
    done = subprocess.run(
        ["bash", "-c", script, "bash", line], cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ
    )
    assert {word.strip() for word in done.stdout.splitlines()} == expected, done.stderr
