"""The worker team: many steps, sleeping and waking, more threads than cores, several models at once, closing."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from ternrun.errors import LoadError, UsageError
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.cpu.model import CpuModel
from ternrun.runtime.weights import Tensor
from tests.runtime.cpu.models import batch_of, loaded, logits_of
from tests.runtime.cpu.test_model import IDS, WEIGHTS, changed


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    """What the model says to IDS."""
    with loaded(WEIGHTS) as model:
        return logits_of(model, IDS)


def workers() -> int:
    """Threads of all teams of this process."""
    return sum(thread.daemon and "_worker" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("threads", [2, 3, 8, 16])
def test_any_number_of_threads(threads: int, wanted: np.ndarray) -> None:
    """Also more than there are cores."""
    with loaded(WEIGHTS, threads=threads) as model:
        np.testing.assert_array_equal(logits_of(model, IDS), wanted)
        np.testing.assert_array_equal(logits_of(model, IDS, (1,) * len(IDS)), wanted)


def test_many_steps(wanted: np.ndarray) -> None:
    with loaded(WEIGHTS, threads=2) as model:
        for _ in range(300):
            last = model.forward(batch_of(IDS[-1:], len(IDS) - 1)) if _ else logits_of(model, IDS)[-1:]
            np.testing.assert_array_equal(last, wanted[-1:])


def test_workers_sleep_between_steps_and_wake_again(wanted: np.ndarray) -> None:
    with loaded(WEIGHTS, threads=4) as model:
        for pause in (0.0, 0.001, 0.005, 0.02, 0.05, 0.2):
            time.sleep(pause)
            np.testing.assert_array_equal(logits_of(model, IDS, (3,)), wanted)
        time.sleep(0.2)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.1  # three workers that spun would take a second or more


def test_two_models_at_once(wanted: np.ndarray) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with loaded(WEIGHTS, threads=2) as model:
                for _ in range(30):
                    np.testing.assert_array_equal(logits_of(model, IDS, (5,)), wanted)
        except BaseException as error:
            failures.append(error)

    users = [threading.Thread(target=work) for _ in range(2)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
    assert not any(user.is_alive() for user in users)
    assert not failures


def test_closing() -> None:
    before = workers()
    model = CpuModel(WEIGHTS, EngineConfig(threads=3, context=64))
    assert workers() == before + 2
    model.close()
    model.close()
    assert workers() == before
    for run in (model.forward, model.embed):
        with pytest.raises(UsageError, match="the model is closed"):
            run(batch_of(IDS))


def test_threads_that_the_system_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence; those that were begun are ended."""
    before, start = workers(), threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if workers() == before + 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(UsageError, match="does not let 5 threads run"):
        CpuModel(WEIGHTS, EngineConfig(threads=5, context=64))
    assert workers() == before


def test_closing_wakes_workers_that_an_interrupted_run_has_not() -> None:
    before = workers()
    model = CpuModel(WEIGHTS, EngineConfig(threads=3, context=64))
    pool = model._pool
    model.forward(batch_of(IDS))
    time.sleep(0.2)  # all are parked
    assert pool._run_program(pool._base, 0, 3)  # and here comes Ctrl-C
    closing = threading.Thread(target=model.close, daemon=True)
    closing.start()
    closing.join(10)
    assert workers() == before


def test_models_that_are_forgotten_stop_their_workers() -> None:
    """One that is dropped without being closed, and one that fails while it is loaded."""
    before = workers()
    model = CpuModel(WEIGHTS, EngineConfig(threads=3, context=64))
    model.forward(batch_of(IDS))
    del model
    gc.collect()
    assert workers() == before
    bad = WEIGHTS.tensors["blk.0.attn_q.weight"]
    codes = np.full(64 * 16, 0xFF, np.uint8)
    with pytest.raises(LoadError, match="not ternary"):
        CpuModel(changed(bad.name, Tensor(bad.name, "HF_PACKED", (64, 64), codes)), EngineConfig(threads=3, context=64))
    gc.collect()
    assert workers() == before


def test_a_program_ends_with_its_models_open() -> None:
    program = """
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.cpu.model import CpuModel
from tests.runtime.cpu.models import batch_of
from tests.runtime.cpu.test_model import WEIGHTS
model = CpuModel(WEIGHTS, EngineConfig(threads=3, context=64))
print(model.forward(batch_of([1, 2])).shape)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(2, 50)\n", "")
