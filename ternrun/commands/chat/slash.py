"""The commands of a chat: a table of names, and one function each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from ternrun.commands.chat import FLAGS
from ternrun.commands.chat.conversation import Conversation
from ternrun.commands.chat.session import Session
from ternrun.errors import UsageError
from ternrun.runtime.config import SamplingParams


class Command(NamedTuple):
    """`obey` gets what stands behind the name."""

    obey: Callable[[Session, str], None]
    arguments: str
    help: str


def obey(session: Session, line: str) -> None:
    """Run a line that begins with /. Raises UsageError, OSError, and what answering raises."""
    name, _, rest = line[1:].strip().partition(" ")
    if name not in COMMANDS:
        raise UsageError(f"there is no command /{name}: /help lists them, and // begins a message with /")
    COMMANDS[name].obey(session, rest.strip())


def _help(session: Session, _: str) -> None:
    heads = {f"/{name} {command.arguments}".rstrip(): command.help for name, command in COMMANDS.items()}
    width = max(map(len, heads))
    session.console.note("\n".join(f"{head:{width}}  {text}" for head, text in heads.items()))


def _system(session: Session, text: str) -> None:
    if session.plain:
        raise UsageError("a text that is continued has no system message")
    if text:
        session.talk.system = None if text == "-" else text
    else:
        session.console.note(session.talk.system or "there is no system message")


def _plain(session: Session, word: str) -> None:
    if word not in ("", "off"):
        raise UsageError("/plain, or /plain off")
    session.plain = not word
    session.console.note("your text is continued" if session.plain else "a chat")


def _clear(session: Session, _: str) -> None:
    session.talk.messages.clear()


def _retry(session: Session, _: str) -> None:
    before = list(session.talk.messages)
    session.talk.drop("assistant")
    if not session.talk.messages:
        raise UsageError("there is nothing to answer yet")
    try:
        session.answer()
    except BaseException:
        session.talk.messages = before
        raise


def _undo(session: Session, _: str) -> None:
    session.talk.drop("assistant")
    if session.talk.drop("user") is None:
        raise UsageError("there is nothing to take back")


def _show(session: Session, _: str) -> None:
    for message in session.talk.all():
        session.console.note(message["content"] if session.plain else f"{message['role']}: {message['content']}")


def _save(session: Session, path: str) -> None:
    if not path:
        raise UsageError("where to? /save FILE")
    name = path.removesuffix(" --force").strip()
    session.talk.save(name, force=name != path)
    session.console.note(f"{len(session.talk.all())} messages written to {name}")


def _load(session: Session, path: str) -> None:
    if not path:
        raise UsageError("from where? /load FILE")
    session.talk = Conversation.load(path)
    session.console.note(f"{len(session.talk.all())} messages read from {path}")


def _set(session: Session, words: str) -> None:
    """`NAME VALUE` sets, `NAME` goes back to the default, nothing shows what is set."""
    name, _, value = words.partition(" ")
    name = name.replace("-", "_")
    if not name:
        kept = session.settings
        session.console.note(json.dumps(kept) if kept else f"nothing is set: {', '.join(FLAGS)}")
        return
    if name not in FLAGS:
        raise UsageError(f"there is no setting {name!r}: {', '.join(FLAGS)} are")
    settings = {key: old for key, old in session.settings.items() if key != name}
    if value.strip():
        settings[name] = _value(name, value.strip())
    SamplingParams.from_dict(settings)
    session.settings = settings


def _value(name: str, text: str) -> Any:
    """As the flag of that name reads it. Raises UsageError."""
    flag = FLAGS[name]
    if flag.kind is bool:
        if text not in ("true", "false"):
            raise UsageError(f"{name} is true or false")
        return text == "true"
    try:
        value = flag.kind(text)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UsageError(f"{name} cannot be {text!r}") from error
    return (value,) if flag.more.get("action") == "append" else value


def _stats(session: Session, _: str) -> None:
    answered, usage = session.answered, session.answered.usage
    if not answered.whole_s:
        raise UsageError("nothing was answered yet")
    rest = answered.whole_s - answered.first_s
    lines = [f"first text after {answered.first_s:.2f} s, all of it after {answered.whole_s:.2f} s"]
    if usage.prompt is not None:
        lines.append(f"prompt: {usage.prompt} tokens, {usage.cached or 0} of them found in the cache")
    if usage.generated:
        speed = f", {(usage.generated - 1) / rest:.1f} a second" if rest > 0 else ""
        lines.append(f"answer: {usage.generated} tokens{speed}")
    session.console.note("\n".join(lines))


def _exit(session: Session, _: str) -> None:
    session.over = True


COMMANDS = {
    "help": Command(_help, "", "show this list"),
    "system": Command(_system, "[TEXT]", "set the system message; - removes it, nothing shows it"),
    "plain": Command(_plain, "[off]", "no chat: what you type is a text, and the model continues it"),
    "clear": Command(_clear, "", "forget what was said, but not the system message"),
    "retry": Command(_retry, "", "answer the last message again"),
    "undo": Command(_undo, "", "take the last message and its answer back"),
    "show": Command(_show, "", "show the conversation"),
    "save": Command(_save, "FILE [--force]", "write the conversation to a file; --force: over another one"),
    "load": Command(_load, "FILE", "go on with a conversation from a file"),
    "set": Command(_set, "[NAME [VALUE]]", "change how it answers, as in /set top_p 0.9; NAME alone: the default"),
    "stats": Command(_stats, "", "times and tokens of the last answer"),
    "exit": Command(_exit, "", "leave"),
}
