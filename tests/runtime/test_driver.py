"""The engine's thread: many threads at once, aborts, closing, failures; nobody waits for ever."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from ternrun.errors import ContextError, UsageError
from ternrun.runtime.config import SamplingParams
from ternrun.runtime.engine.driver import Driver
from ternrun.runtime.engine.engine import Engine
from ternrun.runtime.engine.request import Request, StepOutput
from tests.runtime.fake_model import FakeModel

LONG = SamplingParams(max_tokens=100, ignore_eos=True)


@pytest.fixture
def model() -> FakeModel:
    return FakeModel(n_blocks=64, max_batch=4, prefill_chunk=8)


@pytest.fixture
def driver(model: FakeModel) -> Iterator[Driver]:
    others = {*threading.enumerate()}
    driver = Driver(Engine(model))
    yield driver
    driver.close()
    assert not any(t.name == "ternrun-engine" for t in {*threading.enumerate()} - others)


class Gate(FakeModel):
    """Steps only when let; what a test holds back cannot be over before it looks."""

    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.steps: SimpleQueue[None] = SimpleQueue()

    def forward(self, batch: Any) -> Any:
        self.steps.get(timeout=10)
        return super().forward(batch)


def tokens(driver: Driver, request: Request) -> list[int]:
    return [t for output in driver.outputs(request) for t in output.tokens]


def soon(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_threads_share_the_engine_and_get_their_own_tokens(driver: Driver) -> None:
    asked = [Request([i % 13, 1, 2], SamplingParams(max_tokens=15, temperature=1, seed=i)) for i in range(24)]
    alone = [tokens(driver, request) for request in asked]
    together: dict[int, list[int]] = {}

    def work(first: int) -> None:
        for i in range(first, len(asked), 6):
            together[i] = tokens(driver, asked[i])

    threads = [threading.Thread(target=work, args=[i]) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [together[i] for i in range(24)] == alone


def test_closing_outputs_frees_the_request(driver: Driver) -> None:
    outputs = driver.outputs(Request([1, 2], LONG))
    next(outputs)
    outputs.close()
    assert list(outputs) == []
    soon(lambda: not driver.engine.has_work)


def test_forgotten_outputs_free_the_request(driver: Driver) -> None:
    for _ in range(50):
        outputs = driver.outputs(Request([1, 2], LONG))
        del outputs
    gc.collect()
    soon(lambda: not driver.engine.has_work)
    assert driver.engine.cache.available == 64


def test_a_refused_request_raises_where_it_was_made(driver: Driver) -> None:
    with pytest.raises(ContextError):
        driver.outputs(Request([1] * 500))
    with pytest.raises(UsageError):
        driver.submit(Request([99]), lambda _: None)
    assert len(tokens(driver, Request([1], LONG))) == 100


def test_close_ends_what_is_under_way() -> None:
    model = Gate(max_batch=1)
    driver = Driver(Engine(model))
    ends: list[StepOutput] = []
    running, waiting = (driver.submit(Request([i], LONG), ends.append) for i in range(2))
    model.steps.put(None)
    soon(lambda: bool(ends))
    closer = threading.Thread(target=driver.close)
    closer.start()
    soon(lambda: not driver._open)
    model.steps.put(None)
    closer.join(10)
    assert not closer.is_alive()
    assert {o.id: o.finish_reason for o in ends} == {running.id: "abort", waiting.id: "abort"}
    with pytest.raises(UsageError, match="closed"):
        driver.submit(Request([1]), ends.append)
    driver.abort(running)
    driver.close()


def test_a_fault_of_the_model_reaches_everyone_who_waits_and_the_next_is_served() -> None:
    class Faulty(FakeModel):
        fail = True

        def forward(self, batch: Any) -> Any:
            if self.fail:
                raise MemoryError("no room")
            return super().forward(batch)

    model = Faulty()
    driver = Driver(Engine(model))
    for _ in range(3):
        with pytest.raises(MemoryError, match="no room"):
            tokens(driver, Request([1]))
    model.fail = False
    assert len(tokens(driver, Request([1], LONG))) == 100
    assert driver.engine.cache.available == model.n_blocks
    driver.close()


def test_a_request_that_changes_after_it_was_checked_is_refused_too() -> None:
    model = Gate()
    driver = Driver(Engine(model))
    first = driver.outputs(Request([1], SamplingParams(max_tokens=1)))
    soon(lambda: driver.engine.has_work)  # the thread is in a step: what comes now waits
    ids = [1, 2]
    second = driver.outputs(Request(ids))
    ids[0] = 99
    model.steps.put(None)
    assert len(list(first)) == 1
    with pytest.raises(UsageError, match="99"):
        list(second)
    driver.close()


def test_a_receiver_that_fails_harms_nobody_else(driver: Driver) -> None:
    def gone(output: StepOutput) -> None:
        raise RuntimeError("Event loop is closed")

    driver.submit(Request([3], LONG), gone)
    assert len(tokens(driver, Request([1], LONG))) == 100
    soon(lambda: not driver.engine.has_work)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_process_is_told_that_nobody_would_answer(driver: Driver) -> None:
    assert tokens(driver, Request([1]))
    if not (child := os.fork()):
        try:
            signal.alarm(10)
            tokens(driver, Request([1]))
        except UsageError as error:
            driver.close()
            os._exit(0 if "forked" in str(error) else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert tokens(driver, Request([1]))


def test_an_idle_driver_uses_no_time(driver: Driver) -> None:
    tokens(driver, Request([1]))
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.05


def test_calls_run_between_steps(driver: Driver) -> None:
    """In the engine's thread; what goes wrong is the caller's."""
    assert driver.call(lambda _: threading.current_thread().name) == "ternrun-engine"
    with pytest.raises(ZeroDivisionError):
        driver.call(lambda _: 1 // 0)
    assert tokens(driver, Request([1], LONG))
    driver.close()
    with pytest.raises(UsageError, match="closed"):
        driver.call(lambda _: 0)
