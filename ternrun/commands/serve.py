"""Serve a model over HTTP: OpenAI's API, llama.cpp's and Ollama's routes; docs/server.md lists them all.

It listens at once and loads behind that (/health says when it is ready). SIGTERM, Ctrl-C or SIGHUP lets requests come
to their end; a second SIGTERM or Ctrl-C ends at once. API keys may also stand in TERNRUN_API_KEYS, separated by commas.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import suppress
from dataclasses import fields
from functools import partial
from typing import Any

from ternrun.commands.line.parser import Parser
from ternrun.commands.models import add_models, add_template, check_model, load_model, named_models
from ternrun.commands.options import APPEND, ENGINE, OFF, SWITCH, Flag, add_flags, given
from ternrun.commands.terminal import safe
from ternrun.runtime.config import EngineConfig
from ternrun.server.settings import ServerConfig, hosts, read_keys

EXAMPLES = """\
examples:
  ternrun serve model.gguf
  ternrun serve small=a.gguf large,gpt-4=b.gguf
  ternrun serve model.gguf --host 0.0.0.0 --port 8000 --api-key-file keys.txt
  curl localhost:8080/v1/completions -d '{"prompt": "def fibonacci(n):", "max_tokens": 32}'
"""

LISTEN = {
    "host": Flag(("--host",), str, "ADDRESS", "where to listen, several separated by commas; 0.0.0.0: everywhere"),
    "port": Flag(("--port",), int, "N", "where to listen; 0: any port that is free"),
    "unix_socket": Flag(("--unix-socket",), str, "PATH", "listen there in place of host and port"),
    "certificate": Flag(("--certificate",), str, "PEM", "serve TLS with it"),
    "private_key": Flag(("--private-key",), str, "PEM", "the certificate's key, where it is in another file"),
    "api_keys": Flag(
        ("--api-key",), str, "KEY", "answer only those who know it; at least 8 characters; repeatable", APPEND
    ),
    "cors": Flag(
        ("--cors",), str, "ORIGIN", "web pages that may ask; localhost: this machine's, *: all; repeatable", APPEND
    ),
    "allow_hosts": Flag(("--allow-host",), str, "NAME", "a name this machine goes by; repeatable", APPEND),
    "pooling": Flag(("--pooling",), str, "NAME", "of embeddings: mean, cls, last or none; else what the file says"),
    "alias": Flag(("--alias",), str, "NAME", "the model's name in answers, where there is one model"),
    "page": Flag(("--no-page",), bool, "", "no page at /", OFF),
    "slot_save_path": Flag(("--slot-save-path",), str, "FOLDER", "let clients save and restore slots there"),
    "strict": Flag(("--strict",), bool, "", "refuse fields of requests that have no effect here", SWITCH),
}
LIMITS = {
    "queue": Flag(("--queue",), int, "N", "sequences that may wait before others are told to try again"),
    "max_tokens": Flag(("--max-tokens",), int, "N", "tokens an answer may have, whatever is asked for; 0: any number"),
    "context_shift": Flag(("--context-shift",), bool, "", "where a context is full, drop its middle and go on", SWITCH),
    "timeout": Flag(("--timeout",), float, "S", "seconds a request may take; 0: any"),
    "stall": Flag(("--stall",), float, "S", "seconds a client may take to send its request or to read"),
    "drain": Flag(("--drain",), float, "S", "seconds that requests may go on after SIGTERM"),
    "max_body": Flag(("--max-body",), int, "BYTES", "the largest request"),
    "max_prompts": Flag(("--max-prompts",), int, "N", "prompts of a request times its n"),
}
BATCH = {
    "max_batch": Flag(("--max-batch",), int, "N", "sequences that run together"),
    "prefill_chunk": Flag(("--prefill-chunk",), int, "N", "prompt tokens a step"),
    "kv_tokens": Flag(("--kv-tokens",), int, "N", "tokens the cache holds for all; 0: one whole context"),
}


def add_arguments(parser: Parser) -> None:
    """Add this command's flags."""
    add_models(parser)
    add_template(parser)
    add_flags(parser, "who may ask, and where", ServerConfig, LISTEN)
    parser.add_argument("--api-key-file", metavar="FILE", help="API keys of 8 characters at least, one a line")
    parser.add_argument(
        "--default", metavar="NAME=VALUE", action="append", default=[],
        help="what requests get that do not say, such as temperature=0.2 or seed=1; repeatable",
    )  # fmt: skip
    add_flags(parser, "limits", ServerConfig, LIMITS)
    add_flags(parser, "how it runs", EngineConfig, ENGINE | BATCH)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from ternrun.server.app.run import serve

    engine, config = given(args, EngineConfig), settings(args)
    models = named_models(args, config.alias)
    for one in models.values():
        check_model(one)
    openers = {names: partial(load_model, one, engine) for names, one in models.items()}
    near = {"127.0.0.1", "::1", "localhost"}
    if not config.api_keys and not config.unix_socket and not near.issuperset(hosts(config)):
        _tell("anybody who reaches this machine may ask: an --api-key-file or a firewall would prevent that")

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    serve(config, openers, _tell)
    return 0


def settings(args: argparse.Namespace) -> ServerConfig:
    """What flags, key file and environment say. Raises ConfigError, UsageError."""
    known = {f.name for f in fields(ServerConfig)}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in vars(args).items() if k in known}
    keys = [*values.get("api_keys", ()), *filter(None, os.environ.get("TERNRUN_API_KEYS", "").split(","))]
    keys += read_keys(args.api_key_file) if args.api_key_file else ()
    from ternrun.server.fields.defaults import read_defaults

    return ServerConfig(**(values | {"api_keys": tuple(keys), "defaults": read_defaults(args.default)}))


def _tell(line: str) -> None:
    with suppress(OSError):  # the terminal may have closed, which is no reason to end
        print(safe(f"ternrun: {line}"), file=sys.stderr, flush=True)
