"""Where the server listens and what of it is there; web pages and names that are let in."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ternrun.api import load
from ternrun.errors import TemplateError
from ternrun.server.settings import ServerConfig
from tests.server.serving import Server, running

MESSAGES = [{"role": "user", "content": "hi"}]


def ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


@pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6")
def test_several_addresses(path: Path) -> None:
    with running(ServerConfig(host="127.0.0.1, ::1", port=0), lambda: load(path, threads=1)) as server:
        first, second = server.url.split(", ")
        for url in (first, second):
            host, _, port = url.removeprefix("http://").rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port)), 30) as connection:
                connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.0 200")


def test_no_page(path: Path, server: Server) -> None:
    assert b"<!doctype html>" in server.ask("/").body
    with running(ServerConfig(port=0, page=False), lambda: load(path, threads=1)) as bare:
        assert bare.ask("/").status == 405
        assert bare.ask("/health").status == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost", 200),
        ("http://localhost:3000", 200),
        ("https://127.0.0.1:8443", 200),
        ("http://[::1]:3000", 200),
        ("http://localhost.evil.example", 403),
        ("http://notlocalhost", 403),
        ("null", 403),
        ("http://[", 403),
        ("", 403),
    ],
)
def test_pages_of_this_machine(local: Server, origin: str, status: int) -> None:
    answer = local.ask("/health", Origin=origin)
    assert answer.status == status
    assert answer.headers.get("Access-Control-Allow-Origin") == (origin if status == 200 else None)


@pytest.fixture(scope="module")
def local(path: Path) -> Iterator[Server]:
    with running(ServerConfig(port=0, cors=("localhost",)), lambda: load(path, threads=1)) as it:
        yield it


@pytest.mark.parametrize("host", ["[", "[::1", "]", "a]:b", "//x", "evil.example@localhost:x"])
def test_a_host_that_is_no_name_is_not_known(server: Server, host: str) -> None:
    assert server.ask("/health", Host=host).status in (400, 403)


def test_a_chat_template_of_ones_own(path: Path) -> None:
    with running(ServerConfig(port=0), lambda: load(path, threads=1, chat_template="chatml")) as server:
        prompt = server.ask("/apply-template", {"messages": MESSAGES}).json["prompt"]
        assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    for given, says in (("chatlm", "neither a Jinja template"), ("{% if %}", "is damaged")):
        with pytest.raises(TemplateError, match=says):
            load(path, threads=1, chat_template=given)
