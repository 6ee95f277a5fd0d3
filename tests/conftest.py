"""What all tests share."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec

import pytest

from ternrun.runtime.backend.registry import register_backend

# the trainer is an extra: its tests belong to those who installed it, as continuous integration does
collect_ignore = [] if find_spec("torch") else ["train"]

# a script's background jobs ignore Ctrl-C, and so would every process that tests start to send it one
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither the user's default model nor the list of their downloads."""
    os.environ.pop("TERNRUN_MODEL", None)
    os.environ["TERNRUN_MODELS"] = str(tmp_path_factory.mktemp("models"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", choices=("cpu", "numpy"), default="cpu", help="the backend that runs models in tests")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cpu_backend: the test looks at what only the CPU backend has")
    if config.getoption("--backend") == "numpy":
        from tests import numpy_backend

        register_backend("cpu", lambda: numpy_backend)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With another backend, tests of the CPU's own are left out."""
    if config.getoption("--backend") == "cpu":
        return
    own = [item for item in items if "runtime/cpu/" in item.path.as_posix() or item.get_closest_marker("cpu_backend")]
    config.hook.pytest_deselected(items=own)
    items[:] = [item for item in items if item not in own]


def pytest_report_header() -> str:
    """Say so, rather than leaving them out in silence."""
    return "the trainer's tests are left out: pip install -e '.[dev,train]' brings them" if collect_ignore else ""
