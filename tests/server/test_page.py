"""The page at /: served whole, closed to everything else, with a label for every control."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from tests.server.serving import Server


class Reader(HTMLParser):
    """Controls that nothing names, and every id."""

    def __init__(self) -> None:
        super().__init__()
        self.unnamed: list[str] = []
        self.ids: list[str] = []
        self.labelled: set[str] = set()
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        if tag == "label":
            self._inside = True
            self.labelled.add(given.get("for") or "")
        elif tag in ("input", "textarea", "select") and not self._inside:
            self.unnamed.append(given.get("id") or "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "label"


def test_the_page_is_whole_and_closed(server: Server) -> None:
    answer = server.ask("/")
    html = answer.body.decode()
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"https?://|\bon\w+=|style=|innerHTML", html)


def test_controls_have_names(server: Server) -> None:
    html = server.ask("/").body.decode()
    reader = Reader()
    reader.feed(html)
    assert set(reader.unnamed) <= reader.labelled
    assert len(reader.ids) == len(set(reader.ids))
    assert set(re.findall(r'\$\("(\w+)"\)', html)) <= set(reader.ids)


def test_it_asks_for_what_there_is(server: Server) -> None:
    html = server.ask("/").body.decode()
    paths = re.findall(r'"(v1/[\w/]+|props|health)"', html)
    assert len(paths) == 5
    for path in paths:
        assert server.ask(f"/{path}").status == (405 if path.endswith("completions") else 200)
