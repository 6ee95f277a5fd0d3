"""`ternrun run`: an answer where there is a prompt, a chat where there is none."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from ternrun.commands import chat
from tests.commands.conftest import Done
from tests.fakes import fake_gguf, fake_weights

Run = Callable[..., Done]


@pytest.mark.parametrize("template", [True, False])
def test_on_a_terminal_without_a_prompt_it_chats(
    template: bool, ternrun: Run, tiny: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(chat, "run", lambda args: seen.append(args) or 0)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    model = tiny if template else str(fake_gguf(tmp_path_factory.mktemp("m") / "m.gguf", fake_weights("llama")))
    assert ternrun("run", model, "--temp", "0.5", "--system", "S").code == 0
    (args,) = seen
    assert (args.model, args.plain, args.temperature, args.system, args.url) == (model, not template, 0.5, "S", None)
    assert ternrun("run", model, "ab", "-n", "1").code == 0
    assert len(seen) == 1
