"""Every example runs as it stands, on a fake model and the real CPU runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import fake_gguf, fake_weights

ROOT = Path(__file__).parent.parent
TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
SAID = {  # what its output must hold, beside whatever the fake model says
    "batch.py": ["def add(a, b):", "class Stack:", "s to the first token"],
    "chat.py": ["you: model: ", "\nyou: model: "],
    "complete.py": ["def fibonacci(n):", "[64 tokens, ended by length;", "cpu/"],
    "score.py": ["The capital of France is Paris", "bits per byte"],
    "stream.py": ["Once upon a time"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", fake_weights(), tokenizer__chat_template=TEMPLATE)


def test_every_example_is_listed() -> None:
    assert sorted(path.name for path in (ROOT / "examples").glob("*.py")) == sorted([*SAID, "ray_serve.py"])


@pytest.mark.parametrize("name", SAID)
def test_example_runs(name: str, model: Path) -> None:
    command = [sys.executable, "-W", "error", "-X", "utf8", str(ROOT / "examples" / name), str(model)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = "hello\nand now?\n\n"
    done = subprocess.run(
        command, env=environment, input=said, capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in SAID[name]:
        assert text in done.stdout


@pytest.mark.parametrize("name", SAID)
def test_an_example_without_a_model_runs_the_carried_one_or_says_how(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", str(ROOT / "examples" / name)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    if name == "chat.py":  # the carried model is none to talk to
        assert done.returncode == 1
        assert done.stderr == "Talk to a model in the terminal; an empty line ends it: python chat.py model.gguf\n"
    else:
        assert (done.returncode, done.stderr) == (0, "")
