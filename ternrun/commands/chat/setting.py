"""`/set`: flags of sampling by any of their names, Ollama's spellings, and what the chat itself shows and keeps."""

from __future__ import annotations

import argparse
import difflib
import json
from typing import Any

from ternrun.commands.chat.history import keep
from ternrun.commands.chat.session import Session
from ternrun.commands.options import CHAT_SAMPLING as FLAGS
from ternrun.errors import UsageError
from ternrun.runtime.config import SamplingParams

OTHERS = {
    "num_predict": "max_tokens",
    "n_predict": "max_tokens",
    "temp": "temperature",
    "repetition_penalty": "repeat_penalty",
}
NAMES = {n.lstrip("-").replace("-", "_"): name for name, flag in FLAGS.items() for n in flag.names} | OTHERS
FIXED = {
    "num_ctx": "-c N",
    "context": "-c N",
    "ctx_size": "-c N",
    "num_thread": "--threads N",
    "threads": "--threads N",
}
SWITCHES = ("system", "verbose", "quiet", "history", "nohistory")


def change(session: Session, words: str) -> None:
    """`NAME VALUE` sets, `NAME` goes back to the default, nothing shows what is set. Raises UsageError."""
    name, _, value = words.partition(" ")
    if name in ("parameter", "param"):
        name, _, value = value.strip().partition(" ")
    name, value = name.lstrip("-").replace("-", "_"), value.strip()
    if not name:
        shown(session)
    elif name == "system":
        system(session, value)
    elif name in ("verbose", "quiet"):
        session.verbose = name == "verbose"
    elif name in ("history", "nohistory"):
        keep(name == "history")
    else:
        _sampling(session, name, value)


def shown(session: Session) -> None:
    """Show what is set."""
    kept = session.settings
    session.console.note(json.dumps(kept) if kept else f"nothing is set: {', '.join(FLAGS)}")


def system(session: Session, text: str) -> None:
    """Set the system message; `-` removes it, nothing shows it. Raises UsageError in plain mode."""
    if session.plain:
        raise UsageError("a text that is continued has no system message")
    if text:
        session.talk.system = None if text == "-" else text
    else:
        session.console.note(session.talk.system or "there is no system message")


def _sampling(session: Session, name: str, value: str) -> None:
    if name in FIXED:
        raise UsageError(f"{name} is decided at the start: ternrun chat {FIXED[name]}")
    if name not in NAMES:
        close = difflib.get_close_matches(name, [*NAMES, *SWITCHES], 1)
        meant = f"; did you mean {close[0]!r}?" if close else f": {', '.join(FLAGS)} are"
        raise UsageError(f"there is no setting {name!r}{meant}")
    name = NAMES[name]
    settings = {key: old for key, old in session.settings.items() if key != name}
    if value:
        settings[name] = _value(name, value)
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
