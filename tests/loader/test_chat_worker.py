"""The processes that render: shared by threads, replaced when they end, left to the parent by a fork, never orphans."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ternrun.errors import TemplateError
from ternrun.loader.chat import pool as pool_module
from ternrun.loader.chat import wire
from ternrun.loader.chat.messages import pack_names
from ternrun.loader.chat.pool import MAX_WORKERS, POOL, Worker, WorkerPool
from ternrun.loader.chat.template import ChatTemplate
from ternrun.loader.chat.worker import MAX_TEMPLATES, Renderer, serve

NAMES = pack_names({"x": "é😀\ud800"})


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool()
    yield made
    made.close()


def test_a_worker_that_was_killed_is_replaced(pool: WorkerPool) -> None:
    assert pool.render("k", "{{ x }}", NAMES) == "é😀\ud800"
    (worker,) = pool._all
    worker._process.kill()
    worker._process.wait()
    assert pool.render("k", "{{ x }}", NAMES) == "é😀\ud800"
    assert worker not in pool._all
    assert len(pool._all) == 1


def test_a_worker_that_dies_at_work_is_the_templates_fault(pool: WorkerPool) -> None:
    pool.render("k", "{{ x }}", NAMES)
    (worker,) = pool._all
    timer = threading.Timer(0.1, worker._process.kill)
    timer.start()
    with pytest.raises(TemplateError, match="^the chat template takes more time or memory than is allowed$"):
        pool.render("loop", "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3, NAMES)
    timer.join()
    assert pool._all == set()


def test_an_interrupted_question_leaves_no_reply_behind(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pool.render("k", "{{ x | length }}", NAMES) == "3"

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool_module, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.render("k", "{{ x | length }}", NAMES)
    monkeypatch.undo()
    assert pool._all == set()
    assert pool.render("other", "{{ x }}", NAMES) == "é😀\ud800"


def test_more_templates_than_a_worker_keeps(pool: WorkerPool) -> None:
    for _ in range(2):
        for i in range(MAX_TEMPLATES + 3):
            assert pool.render(str(i), f"{i}{{{{ x | length }}}}", NAMES) == f"{i}3"
    assert len(pool._all) == 1


def test_threads_share_few_workers(pool: WorkerPool) -> None:
    found: list[str] = []
    source = "{% for i in range(200) %}{{ x }}{% endfor %}"

    def work(word: str) -> None:
        found.extend(pool.render("k", source, pack_names({"x": word})).replace(word, "", 200) for _ in range(20))

    threads = [threading.Thread(target=work, args=(word,)) for word in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [""] * 160
    assert 1 <= len(pool._all) <= MAX_WORKERS


def test_what_cannot_start_says_so(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_MODULE", "ternrun.no_such_module")
    with pytest.raises(TemplateError, match="^the process for chat templates did not start$"):
        pool.render("k", "{{ x }}", NAMES)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(TemplateError, match="^no process for chat templates could be started: "):
        pool.render("k", "{{ x }}", NAMES)
    assert pool._all == set()
    monkeypatch.undo()
    assert pool.render("k", "{{ x }}", NAMES) == "é😀\ud800"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_workers_of_its_own() -> None:
    template = ChatTemplate("{{ messages[0].content }}")
    before = {worker._process.pid for worker in POOL._all}
    code = os.fork()
    if code == 0:
        status = 1
        try:
            assert POOL._all == set()
            assert template.render([{"content": "child"}]) == "child"
            assert not before & {worker._process.pid for worker in POOL._all}
            POOL.close()
            status = 0
        finally:
            os._exit(status)
    assert template.render([{"content": "parent"}]) == "parent"
    assert os.waitpid(code, 0)[1] == 0
    assert {worker._process.pid for worker in POOL._all} == before


SCRIPT = """
import sys, time
from ternrun.loader.chat.pool import POOL
from ternrun.loader.chat.template import ChatTemplate
template = ChatTemplate("{{ messages }}")
print(*(worker._process.pid for worker in POOL._all), flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
"""


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody waits for has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("how", ["wait", "end"])
def test_no_worker_outlives_its_parent(how: str) -> None:
    with subprocess.Popen([sys.executable, "-W", "error", "-c", SCRIPT, how], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        worker = int(parent.stdout.readline())
        if how == "wait":
            assert not is_gone(worker)
            parent.kill()
        assert parent.wait(20) == (-signal.SIGKILL if how == "wait" else 0)
    for _ in range(200):
        if is_gone(worker):
            break
        time.sleep(0.01)
    assert is_gone(worker)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signals")
def test_signals_for_the_parent_leave_a_worker_alone(pool: WorkerPool) -> None:
    pool.render("k", "{{ x }}", NAMES)
    (worker,) = pool._all
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        worker._process.send_signal(number)
    assert pool.render("k", "{{ x }}", NAMES) == "é😀\ud800"
    assert {worker} == pool._all


def test_the_worker_answers_until_its_input_ends() -> None:
    requests, replies = io.BytesIO(), io.BytesIO()
    asked = [("k", None, NAMES), ("k", "{{ x", None), ("k", "{{ x | length }}", None), ("k", None, NAMES)]
    for request in asked:
        wire.send(requests, wire.REQUEST, pickle.dumps(request))  # type: ignore[arg-type]
    requests.seek(0)
    with pytest.raises(EOFError):
        serve(requests, replies)  # type: ignore[arg-type]
    replies.seek(0)
    kinds = [wire.receive(replies)[0] for _ in range(5)]  # type: ignore[arg-type]
    assert kinds == [wire.READY, wire.UNKNOWN, wire.FAULT, wire.READY, wire.TEXT]


def test_a_slow_machine_gets_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1.0 <= Renderer()._slowness <= 8.0
    monkeypatch.setattr(Renderer, "_sample_s", lambda _: 0.02)
    assert Renderer()._slowness == 5.0
    monkeypatch.setattr(Renderer, "_sample_s", lambda _: 9.0)
    assert Renderer()._slowness == 8.0


WITHOUT_TIMERS = """
import time
from ternrun.loader.chat import worker
worker.HAS_TIMERS = False
renderer = worker.Renderer()
with renderer.limited(60):
    renderer.answer("k", "{{ 1 }}", None)
with renderer.limited(0.1):
    ("c" * 4_000_000).strip("b" * 4_000_000 + "c")
"""


def test_a_system_without_timers_ends_the_process_by_the_clock() -> None:
    start = time.perf_counter()
    ended = subprocess.run([sys.executable, "-c", WITHOUT_TIMERS], capture_output=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert b"Timeout" in ended.stderr
    assert time.perf_counter() - start < 10.0


def test_a_worker_imports_little() -> None:
    worker = Worker()
    try:
        template = "{{ x }}"
        assert worker.ask("k", template, NAMES) == "é😀\ud800"
        if sys.platform == "linux":
            maps = Path(f"/proc/{worker._process.pid}/maps").read_text()
            assert "numpy" not in maps
    finally:
        worker.close()
        worker.close()
    assert not worker.is_alive
