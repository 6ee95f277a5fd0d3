'''Talk with a model in the terminal: one in a file, or one that any OpenAI-compatible server has.

Type a message; """ begins and ends one of several lines, and a line that ends with \\ goes on in the next. /help lists
the commands. Ctrl-C stops an answer, and what was said of it stays in the conversation; Ctrl-D or /bye leaves. In a
pipe, each line is a message, and only answers are printed. The key for a server is read from --api-key-file or
TERNRUN_API_KEY. The lines that are typed on a terminal are kept for its owner: TERNRUN_HISTORY names the file, and
nothing is kept where it is empty.
'''

from __future__ import annotations

import argparse
import os
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ternrun.commands.line.parser import Parser
from ternrun.commands.models import add_only_model, add_template
from ternrun.commands.options import CHAT_SAMPLING, ENGINE, add_flags, given
from ternrun.commands.terminal import safe
from ternrun.errors import UsageError
from ternrun.runtime.config import EngineConfig, SamplingParams

if TYPE_CHECKING:
    from ternrun.commands.chat.partner import Partner

EXAMPLES = """\
examples:
  ternrun chat model.gguf --system "Answer in one sentence."
  ternrun chat --url http://localhost:8080 --temp 0.7
  printf '%s\\n' "Name a river." "And a longer one?" | ternrun chat model.gguf
"""

OURS = {"max_tokens": 2**24, "temperature": 0.7}  # where this process runs the model and its file states none
TOLD = {
    "max_tokens": "up to the context's end, or the server's",
    "temperature": "the model's own or 0.7, or the server's",
}


def add_arguments(parser: Parser) -> None:
    """Add this command's flags."""
    add_only_model(parser)
    add_template(parser)
    parser.add_argument("--url", metavar="URL", help="talk with a server; -m then names one of its models")
    parser.add_argument("--api-key-file", metavar="FILE", help="the key for that server, in the first line")
    parser.add_argument("--system", metavar="TEXT", help="a system message in front of the conversation")
    parser.add_argument("--plain", action="store_true", help="no chat: the model continues the text you type")
    parser.add_argument("--load", metavar="FILE", help="go on with a conversation that /save wrote")
    parser.add_argument("--history", metavar="FILE", help="where the lines you type are kept; '' keeps none")
    add_flags(parser, "how it answers", SamplingParams, CHAT_SAMPLING, TOLD)
    add_flags(parser, "how it runs", EngineConfig, ENGINE)


def run(args: argparse.Namespace) -> int:
    """Talk until the user leaves."""
    from ternrun.commands.chat.console import Console
    from ternrun.commands.chat.conversation import Conversation
    from ternrun.commands.chat.session import Session
    from ternrun.commands.chat.slash import SLASH_COMMANDS
    from ternrun.commands.inputs import typed

    settings = given(args, SamplingParams)
    if args.plain and args.system is not None:
        raise UsageError("--system belongs to a chat: it cannot be combined with --plain")
    conversation = Conversation.load(args.load) if args.load else Conversation()
    if args.system is not None:
        conversation.system = typed(args.system, "--system")
    with _partner(args) as partner, Console(args.history) as console:
        return Session(partner, console, conversation, settings, SLASH_COMMANDS, plain=args.plain).run()


def _partner(args: argparse.Namespace) -> AbstractContextManager[Partner]:
    """Who answers. Raises UsageError, and what loading raises."""
    if args.url is None:
        if args.api_key_file:
            raise UsageError("--api-key-file is for a server: it needs --url")
        from ternrun.commands.chat.local import Local

        return Local(args, given(args, EngineConfig), OURS)
    if given(args, EngineConfig) or args.pre:
        raise UsageError("how a server runs its model is decided there: --url takes no flags of the engine")
    if args.chat_template or args.chat_template_file:
        raise UsageError("a server has the chat template of its model: --url takes none")
    from ternrun.commands.chat.remote import Remote
    from ternrun.server.settings import read_keys

    key = read_keys(args.api_key_file)[0] if args.api_key_file else os.environ.get("TERNRUN_API_KEY", "")
    remote = Remote(args.url, args.model or "", key)
    if sys.stderr.isatty():
        sys.stderr.write(safe(f"{remote.name} at {remote.url}") + "\n")
    return remote
