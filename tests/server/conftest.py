"""One server with a tiny model for all tests that do not need another, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from ternrun.server.settings import ServerConfig
from tests.fakes import fake_gguf, fake_weights
from tests.server.serving import TEMPLATE, Server, running


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "tiny.gguf"
    return fake_gguf(file, fake_weights("llama"), tokenizer__chat_template=TEMPLATE, general__name="tiny")


@pytest.fixture(scope="session")
def server(path: Path) -> Iterator[Server]:
    with running(ServerConfig(port=0), lambda: load(path, threads=1)) as it:
        yield it


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.server.browsing import chromium

    with chromium(tmp_path_factory.mktemp("profile")) as it:
        yield it
