"""List the models that a server has loaded: ternrun's own, or any that answers Ollama's /api/ps."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ternrun.commands.line.parser import Parser
from ternrun.commands.terminal import safe, size, table
from ternrun.errors import UsageError

EXAMPLES = """\
examples:
  ternrun ps
  ternrun ps --url http://localhost:8000 --json

The key of a server is read from TERNRUN_API_KEY.
"""
PATIENCE = 10  # seconds for the answer


def add_arguments(parser: Parser) -> None:
    """Add this command's flags."""
    parser.add_argument(
        "--url", metavar="URL", default="http://localhost:8080", help="the server (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the server's answer")


def run(args: argparse.Namespace) -> int:
    """Ask, and print a line a model."""
    answer = loaded(args.url.rstrip("/"))
    if args.json:
        print(json.dumps(answer))
        return 0
    rows = [(str(one.get("name", "")), size(one.get("size") or 0)) for one in answer["models"]]
    print(safe(table(("MODEL", "SIZE"), rows)))
    return 0


def loaded(url: str) -> dict[str, Any]:
    """The answer of /api/ps, with a list `models`. Raises UsageError."""
    key = os.environ.get("TERNRUN_API_KEY")
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url} is no address: it begins with http:// or https://")
    try:
        request = Request(f"{url}/api/ps", headers={"Authorization": f"Bearer {key}"} if key else {})
        with urlopen(request, timeout=PATIENCE) as reply:
            answer: Any = json.load(reply)
    except HTTPError as error:
        raise UsageError(f"{url} answered {error.code} for /api/ps") from error
    except (URLError, OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise UsageError(f"no server answers at {url} ({why}): `ternrun serve MODEL` starts one") from error
    models = answer.get("models") if isinstance(answer, dict) else None
    if not isinstance(models, list) or not all(isinstance(one, dict) for one in models):
        raise UsageError(f"{url}/api/ps answered something other than a list of models")
    return dict(answer)
