"""A server whose model's template, or whose clients' messages, ask for too much: it answers, and it ends when told."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest

from ternrun.api import load
from ternrun.server.settings import ServerConfig
from tests.server.serving import running
from tests.server.test_serving import Process

# harmless for words; hours for two texts of megabytes
STRIPPING = "{% for m in messages %}{{ m.content.strip(cut or 'x') }}{% endfor %}"
HELLO = [{"role": "user", "content": "hello"}]
HOURS = {
    "messages": [{"role": "user", "content": "c" * 3_000_000}],
    "chat_template_kwargs": {"cut": "b" * 3_000_000 + "c"},
}
HEALTH_S = 0.5  # of which 0.05 are for a machine that does nothing else


def test_health_answers_while_templates_take_all_they_may(path: Path) -> None:
    with running(ServerConfig(port=0), lambda: load(path, threads=1, chat_template=STRIPPING)) as server:
        statuses: list[int] = []
        body = json.dumps(HOURS).encode()
        threads = [
            threading.Thread(target=lambda: statuses.append(server.ask("/apply-template", body).status))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        waits = []
        while any(thread.is_alive() for thread in threads):
            start = time.perf_counter()
            assert server.ask("/health").status == 200
            waits.append(time.perf_counter() - start)
        assert statuses == [400] * 3
        assert len(waits) > 10
        assert max(waits) < HEALTH_S
        answer = server.ask("/apply-template", HOURS)
        assert answer.json["error"]["message"] == "the chat template takes more time or memory than is allowed"
        assert server.ask("/apply-template", {"messages": HELLO}).json == {"prompt": "hello"}


def test_a_model_whose_template_cannot_be_compiled_still_continues_texts(path: Path) -> None:
    with running(ServerConfig(port=0), lambda: load(path, threads=1)) as server:
        source = "{{ 3 ** (3 ** (3 ** 5)) }}"
        server.model.__dict__.pop("chat_template", None)
        server.model._file.template = source
        for _ in range(2):
            answer = server.ask("/v1/chat/completions", {"messages": HELLO, "max_tokens": 1})
            assert answer.status == 400
            assert "the chat template takes more time or memory than is allowed" in answer.json["error"]["message"]
        assert server.complete("hello", max_tokens=1)["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_at_such_work_ends_when_it_is_told(path: Path, tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "template.jinja"
    file.write_text(STRIPPING)
    with Process(path, "--threads", "1", "--chat-template-file", str(file)) as process:
        connection = process.ready()
        connection.request("POST", "/apply-template", json.dumps(HOURS), {"Content-Type": "application/json"})
        time.sleep(0.1)
        start = time.perf_counter()
        process.popen.send_signal(number)
        process.popen.wait(20)
        assert time.perf_counter() - start < 5.0
        connection.close()
