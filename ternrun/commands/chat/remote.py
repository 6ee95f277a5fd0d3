"""A model that an OpenAI-compatible server has. The server is not trusted: what it sends is bounded and checked."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ternrun.commands.chat.partner import Message, Partner, Reply, Usage
from ternrun.errors import UsageError

SILENCE = 600  # seconds until the next piece: a long prompt takes a while
MAX_LINE = 1 << 20  # bytes of one event
MAX_ERROR = 1 << 16


class _NoRedirect(HTTPRedirectHandler):
    """A key must not follow to where a server points."""

    def redirect_request(self, *_: Any) -> None:
        """None: the redirect becomes an error."""


class Remote(AbstractContextManager[Partner]):
    """`url` is the server's, with or without /v1. Raises UsageError where it does not answer."""

    can_chat = True  # as far as anybody can tell before asking
    end = "the server's limit or its context ends: /more goes on if there is room"

    def __init__(self, url: str, model: str, key: str) -> None:
        self.url = _base(url)
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if not key.isprintable():  # http.client would quote it in its complaint
            raise UsageError("the API key must be one line of printable characters")
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._opener = build_opener(_NoRedirect)
        self.name = model or self._first_model()

    def __exit__(self, *_: object) -> None:
        """Nothing is kept open between answers."""

    def chat(self, messages: Sequence[Message], sampling: Mapping[str, Any]) -> Reply:
        """See Partner."""
        return self._ask("/chat/completions", {"messages": list(messages)}, sampling)

    def go_on(self, text: str, sampling: Mapping[str, Any]) -> Reply:
        """See Partner."""
        return self._ask("/completions", {"prompt": text}, sampling)

    def _ask(self, path: str, what: dict[str, Any], sampling: Mapping[str, Any]) -> Reply:
        body = {
            "model": self.name,
            **what,
            "stream": True,
            "stream_options": {"include_usage": True},
            **_spelt(sampling),
        }
        return _Answer(self.open(path, body), self.url)

    def open(self, path: str, body: dict[str, Any] | None = None) -> http.client.HTTPResponse:
        """The answer's head has come; its body is still to be read. Raises UsageError."""
        data = None if body is None else json.dumps(body).encode()
        try:
            request = Request(self.url + path, data, self._headers)
            response: http.client.HTTPResponse = self._opener.open(request, timeout=SILENCE)
        except HTTPError as error:
            with error:
                raise UsageError(f"{self.url} answers: {_complaint(error)}") from error
        except (URLError, OSError, ValueError, http.client.HTTPException) as error:
            reason = " ".join(str(getattr(error, "reason", None) or error).split())
            raise UsageError(f"{self.url} cannot be reached: {reason[:500]}") from error
        return response

    def _first_model(self) -> str:
        """The one that the server lists first."""
        with self.open("/models") as response:
            try:
                listed = json.loads(response.read(MAX_LINE))
                return str(listed["data"][0]["id"])
            except (ValueError, LookupError, TypeError, OSError, RecursionError, http.client.HTTPException) as error:
                raise UsageError(f"{self.url} does not list its models: name one with -m") from error


class _Answer:
    """Server-sent events, up to [DONE]."""

    def __init__(self, response: http.client.HTTPResponse, url: str) -> None:
        self._response, self._url = response, url
        self.close = response.close
        self.reason = ""
        self.usage = Usage()

    def __iter__(self) -> Iterator[str]:
        while line := self._line():
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                yield from self._event(data)
        raise UsageError(f"{self._url} broke off in the middle of an answer")

    def _line(self) -> bytes:
        try:
            return self._response.readline(MAX_LINE)
        except (OSError, http.client.HTTPException) as error:
            raise UsageError(f"{self._url} broke off in the middle of an answer: {error}") from error

    def _event(self, data: bytes) -> Iterator[str]:
        try:
            event = json.loads(data)
            if error := event.get("error"):
                raise UsageError(f"{self._url} answers: {_message(error)}")
            if usage := event.get("usage"):
                self.usage = _usage(usage)
            for choice in event.get("choices") or ():
                self.reason = str(choice.get("finish_reason") or self.reason)
                text = choice["text"] if "text" in choice else (choice.get("delta") or {}).get("content")
                if text:
                    yield str(text)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"{self._url} sent what is no event of a completion") from error


def _base(url: str) -> str:
    """Where the routes are: behind /v1, unless the address has a path of its own. Raises UsageError."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        known = None
    if not known:
        raise UsageError(f"{url!r} is no address of a server: http://HOST:PORT is")
    return url.rstrip("/") if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1"


def _spelt(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """As OpenAI writes it; only what the user asked for, so that a strict server sees no field it does not know."""
    body = dict(sampling)
    if "logit_bias" in body:
        body["logit_bias"] = {str(token): max(value, -100.0) for token, value in body["logit_bias"]}
    if "include_stop" in body:
        body["include_stop_str_in_output"] = body.pop("include_stop")  # vLLM's name, which ours understands, too
    if "stop" in body:
        body["stop"] = list(body["stop"])
    return body


def _usage(value: Mapping[str, Any]) -> Usage:
    details = value.get("prompt_tokens_details") or {}
    counts = (value.get("prompt_tokens"), details.get("cached_tokens"), value.get("completion_tokens"))
    return Usage(*(count if isinstance(count, int) else None for count in counts))


def _complaint(error: HTTPError) -> str:
    """What the server says of a refusal, on one line."""
    try:
        return _message(json.loads(error.read(MAX_ERROR))["error"])
    except (ValueError, TypeError, LookupError, RecursionError, OSError, http.client.HTTPException):
        return f"{error.code} {error.reason}"


def _message(error: Any) -> str:
    text = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(text).split())[:500]
