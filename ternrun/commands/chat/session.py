"""The conversation itself: messages go to the partner, lines that begin with / are commands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ternrun.commands.chat.console import Console
from ternrun.commands.chat.conversation import Conversation
from ternrun.commands.chat.partner import Partner, Reply, Usage
from ternrun.errors import ContextError, TernrunError, UsageError

LEAVING = "Ctrl-D or /exit leaves"
AGAIN = "Ctrl-C again, Ctrl-D or /exit leaves"


@dataclass(slots=True)
class Answered:
    """What the last answer took, in seconds and tokens."""

    first_s: float = 0.0
    whole_s: float = 0.0
    usage: Usage = Usage()  # noqa: RUF009 (frozen)

    def told(self) -> str:
        """Times, tokens and tokens a second, in lines for people."""
        rest = self.whole_s - self.first_s
        lines = [f"first text after {self.first_s:.2f} s, all of it after {self.whole_s:.2f} s"]
        if self.usage.prompt is not None:
            lines.append(f"prompt: {self.usage.prompt} tokens, {self.usage.cached or 0} of them found in the cache")
        if self.usage.generated:
            speed = f", {(self.usage.generated - 1) / rest:.1f} a second" if rest > 0 else ""
            lines.append(f"answer: {self.usage.generated} tokens{speed}")
        return "\n".join(lines)


class SlashCommands(NamedTuple):
    """The commands that a session runs: lines that begin with a slash."""

    run: Callable[[Session, str], None]  # of one line; raises UsageError, OSError, and what answering raises
    names: Sequence[str]
    settings: Sequence[str]  # what may follow /set


class Session:
    """Runs until the user leaves. What goes wrong is told on a terminal, and the talk goes on; in a pipe it ends."""

    def __init__(
        self, partner: Partner, console: Console, talk: Conversation, settings: Mapping[str, Any],
        commands: SlashCommands, *, plain: bool,
    ) -> None:  # fmt: skip
        self._commands = commands
        self.partner, self.console, self.talk, self.plain = partner, console, talk, plain
        self.settings = dict(settings)  # what the user set, and nothing else
        self.answered = Answered()
        self.verbose = False  # whether every answer is followed by what it took
        self.over = False
        self._stopped = False  # whether Ctrl-C was the last that was typed

    def run(self) -> int:
        """The exit code."""
        self._offer_plain()
        self.console.complete([f"/{name}" for name in self._commands.names], list(self._commands.settings))
        if self.console.interactive and not self.over:
            kind = "your text is continued" if self.plain else "a chat"
            self.console.note(f"{self.partner.name}: {kind}; /help lists the commands, {LEAVING}")
        while not self.over:
            try:
                line = self.console.read()
                if line is None:
                    break
                self._stopped = False
                self._take(line)
            except KeyboardInterrupt:
                if not self.console.interactive:
                    raise
                self.over, self._stopped = self._stopped, True
                self.console.note("" if self.over else f"\n{AGAIN}")
        return 0

    def say(self, text: str) -> None:
        """One message, or, in plain mode, some more text."""
        before = list(self.talk.messages)
        if self.plain and before and not self.talk.text().endswith("\n"):
            text = "\n" + text if text else ""
        self.talk.add("user", text)
        try:
            self.answer()
        except BaseException:
            self.talk.messages = before  # what was not answered was not said
            raise

    def answer(self) -> None:
        """Let the partner answer what was said, and keep what it says."""
        began = time.perf_counter()
        try:
            reply = (
                self.partner.go_on(self.talk.text(), self.settings)
                if self.plain
                else self.partner.chat(self.talk.all(), self.settings)
            )
            text, first, stopped = self._show(reply)
        except ContextError as error:
            raise UsageError(f"{error}; /undo takes the last message back, /clear begins anew") from error
        self.talk.add("assistant", (self.talk.drop("assistant") or "") + text)
        self.answered = Answered(first - began if first else 0.0, time.perf_counter() - began, reply.usage)
        if stopped:
            self._stopped = True
            self.console.note(f"(stopped; {AGAIN})")
        elif reply.reason == "length" and self.console.interactive:
            self.console.note(f"(cut {self._where(reply.usage.generated)})")
        if self.verbose:
            self.console.note(self.answered.told())

    def _where(self, generated: int | None) -> str:
        """Where an answer was cut, and what goes on."""
        if generated is not None and generated == self.settings.get("max_tokens"):
            return f"at {generated} tokens: /more goes on, /set max_tokens N changes the limit"
        length = "" if generated is None else f"after {generated} tokens, "
        return f"{length}where {self.partner.end}"

    def _show(self, reply: Reply) -> tuple[str, float, bool]:
        """The text, when it began, and whether Ctrl-C ended it."""
        pieces: list[str] = []
        first, stopped = 0.0, False
        try:
            for piece in reply:
                first = first or time.perf_counter()
                pieces.append(piece)
                self.console.piece(piece)
        except KeyboardInterrupt:
            if not self.console.interactive:
                raise
            stopped = True
        finally:
            reply.close()
            text = "".join(pieces)
            self.console.end(text)
        return text, first, stopped

    def _take(self, line: str) -> None:
        """A command, or a message. Raises TernrunError, in a pipe only."""
        try:
            if line.startswith("/") and not line.startswith("//"):
                self._commands.run(self, line)
            elif line.strip() or (self.plain and self.talk.messages):
                self.say(line[1:] if line.startswith("//") else line)
        except (TernrunError, OSError) as error:
            if not self.console.interactive:
                raise
            self.console.note(str(error))

    def _offer_plain(self) -> None:
        """For a model that cannot chat. Raises UsageError where nobody can be asked."""
        if self.plain or self.partner.can_chat:
            return
        why = f"{self.partner.name} has no chat template: it can only continue a text"
        if not self.console.interactive:
            raise UsageError(f"{why}; --plain lets it do that")
        self.console.note(why)
        answer = self.console.read("type texts for it to continue? [Y/n] ")
        if answer is None or answer.strip().lower() not in ("", "y", "yes"):
            self.over = True
        self.plain = True
