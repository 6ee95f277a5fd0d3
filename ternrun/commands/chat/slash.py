"""The commands of a chat: a table of names, and one function each."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import NamedTuple

from ternrun.commands.chat.conversation import Conversation
from ternrun.commands.chat.session import Session, SlashCommands
from ternrun.commands.chat.setting import NAMES, SWITCHES, change, shown, system
from ternrun.errors import UsageError


class Command(NamedTuple):
    """`obey` gets what stands behind the name."""

    obey: Callable[[Session, str], None]
    arguments: str
    help: str


def obey(session: Session, line: str) -> None:
    """Run a line that begins with /. Raises UsageError, OSError, and what answering raises."""
    name, _, rest = line[1:].strip().partition(" ")
    name = ALIASES.get(name.lower(), name.lower())
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, [*COMMANDS, *ALIASES], 1)
        meant = f" (did you mean /{close[0]}?)" if close else ""
        raise UsageError(f"there is no command /{name}{meant}: /help lists them, and // begins a message with /")
    COMMANDS[name].obey(session, rest.strip())


def _help(session: Session, _: str) -> None:
    heads = {f"/{name} {command.arguments}".rstrip(): command.help for name, command in COMMANDS.items()}
    width = max(map(len, heads))
    lines = [f"{head:{width}}  {text}" for head, text in heads.items()]
    session.console.note("\n".join([*lines, "", *KEYS]))


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


def _more(session: Session, _: str) -> None:
    if not session.talk.messages or session.talk.messages[-1]["role"] != "assistant":
        raise UsageError("there is no answer yet that could go on")
    session.answer()


def _undo(session: Session, _: str) -> None:
    session.talk.drop("assistant")
    if session.talk.drop("user") is None:
        raise UsageError("there is nothing to take back")


def _show(session: Session, what: str) -> None:
    if what in PARTS:
        PARTS[what](session)
    elif what:
        raise UsageError(f"/show, or /show {' | '.join(PARTS)}")
    else:
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


def _stats(session: Session, _: str) -> None:
    if not session.answered.whole_s:
        raise UsageError("nothing was answered yet")
    session.console.note(session.answered.told())


def _exit(session: Session, _: str) -> None:
    session.over = True


PARTS: dict[str, Callable[[Session], None]] = {
    "info": lambda session: session.console.note(session.partner.name),
    "parameters": shown,
    "system": lambda session: system(session, ""),
}
KEYS = (
    '""" begins a message of several lines, and the next """ ends it',
    "a line that ends with \\ goes on in the next",
    "Ctrl-C stops an answer, and leaves when pressed again; Ctrl-D leaves",
)
ALIASES = {
    "?": "help", "h": "help", "bye": "exit", "quit": "exit", "q": "exit", "regen": "retry", "regenerate": "retry",
    "continue": "more", "reset": "clear", "new": "clear", "history": "show", "timings": "stats",
}  # fmt: skip
COMMANDS = {
    "help": Command(_help, "", "show this list"),
    "system": Command(system, "[TEXT]", "set the system message; - removes it, nothing shows it"),
    "plain": Command(_plain, "[off]", "no chat: what you type is a text, and the model continues it"),
    "clear": Command(_clear, "", "forget what was said, but not the system message"),
    "more": Command(_more, "", "go on with an answer that was cut"),
    "retry": Command(_retry, "", "answer the last message again, also /regen"),
    "undo": Command(_undo, "", "take the last message and its answer back"),
    "show": Command(_show, "[PART]", "show the conversation, or its info, parameters or system message"),
    "save": Command(_save, "FILE [--force]", "write the conversation to a file; --force: over another one"),
    "load": Command(_load, "FILE", "go on with a conversation from a file"),
    "set": Command(change, "[NAME [VALUE]]", "change how it answers: /set top_p 0.9, /set verbose"),
    "stats": Command(_stats, "", "times and tokens of the last answer"),
    "exit": Command(_exit, "", "leave, also /bye and /quit"),
}
SLASH_COMMANDS = SlashCommands(obey, (*COMMANDS, *ALIASES), (*NAMES, *SWITCHES))
