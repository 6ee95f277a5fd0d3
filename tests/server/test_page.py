"""The page at /: its files as they are served, closed to everything else, with a label for every control."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ternrun.api import load
from ternrun.server.app.page import _files
from ternrun.server.settings import ServerConfig
from tests.server.serving import Server, running

WEB = Path(__file__).parents[2] / "ternrun/server/web"
OWN = sorted(WEB.glob("*.*"))
SCRIPTS = "\n".join(file.read_text() for file in OWN if file.suffix == ".js")


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
        elif tag in ("input", "textarea", "select") and not self._inside and "aria-label" not in given:
            self.unnamed.append(given.get("id") or "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "label"


def test_the_page_is_closed(server: Server) -> None:
    answer = server.ask("/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    )
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    html = answer.body.decode()
    assert not re.search(r"https?://|\bon\w+=|style=|<style|<script>", html)
    assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|eval\(", SCRIPTS)


@pytest.mark.parametrize("name", [file.relative_to(WEB).as_posix() for file in WEB.rglob("*") if file.is_file()])
def test_its_files_are_served_as_they_are(server: Server, name: str) -> None:
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript"}
    kind = types.get(Path(name).suffix, "image/svg+xml" if name.endswith("svg") else "text/plain")
    answer = server.ask(f"/page/{name}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
    assert answer.body == (WEB / name).read_bytes()
    assert answer.headers["Cache-Control"] == "no-cache"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    again = server.ask(f"/page/{name}", If_None_Match=answer.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    head = server.ask(f"/page/{name}", method="HEAD")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(
    "name", ["", "nosuch.js", "../page.py", "..%2fpage.py", "vendor", "vendor/marked/../../main.js"]
)
def test_nothing_else_is(server: Server, name: str) -> None:
    assert server.ask(f"/page/{name}").status == 404


def test_a_key_does_not_cover_the_page_and_no_page_leaves_all_of_it_out(path: Path) -> None:
    with running(ServerConfig(port=0, api_keys=("the-right-key",)), lambda: load(path, threads=1)) as keyed:
        assert [keyed.ask(p).status for p in ("/", "/page/main.js", "/props", "/pagex")] == [200, 200, 401, 401]
    with running(ServerConfig(port=0, page=False), lambda: load(path, threads=1)) as bare:
        assert [bare.ask(p).status for p in ("/", "/page/main.js")] == [405, 404]  # POST / generates


def test_other_names_of_this_machine_are_refused(server: Server) -> None:
    assert server.ask("/page/main.js", Host="evil.example").status == 403


def test_every_address_is_relative() -> None:
    """So that it works under a path of a reverse proxy."""
    found = re.findall(r'(?:src|href|from|import)[=( ]"([^"$]+)"', "\n".join(file.read_text() for file in OWN))
    assert len(found) > 30
    assert all(address.startswith(("./", "page/", "data:")) for address in found), found
    for address in found:
        assert (WEB / address.removeprefix("page/")).is_file(), address


def test_controls_have_names(server: Server) -> None:
    reader = Reader()
    reader.feed(server.ask("/").body.decode())
    assert set(reader.unnamed) <= reader.labelled
    assert len(reader.ids) == len(set(reader.ids))
    assert set(re.findall(r'\$\("([\w-]+)"\)', SCRIPTS)) <= set(reader.ids)


def test_it_asks_for_what_there_is(server: Server) -> None:
    paths = set(re.findall(r'"(v1/[\w/]+|props|health|openapi.json)"', SCRIPTS))
    assert len(paths) == 6
    for path in paths - {"/v1/chat/completions"}:
        assert server.ask(f"/{path}").status == (405 if path.endswith("completions") else 200)


def test_files_are_small_and_libraries_are_named() -> None:
    assert all(len(file.read_text().splitlines()) < 250 for file in OWN)
    told = (WEB / "vendor/README.md").read_text()
    for folder in (entry for entry in (WEB / "vendor").iterdir() if entry.is_dir()):
        assert (folder / "LICENSE").stat().st_size > 1000
        library = next(file for file in folder.iterdir() if file.suffix in (".js", ".mjs")).read_text()
        version = re.search(r"v?(\d+\.\d+\.\d+)", library[:400])
        assert version
        assert version[1] in re.search(rf"^\| `{folder.name}` .*$", told, re.M)[0]  # type: ignore[index]
    assert set(_files()) == {file.relative_to(WEB).as_posix() for file in WEB.rglob("*") if file.is_file()}
