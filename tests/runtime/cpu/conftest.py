"""Fixtures of the CPU kernels' tests."""

from __future__ import annotations

import pytest

from tests.runtime.cpu.harness import ISAS, Machine
from tests.runtime.cpu.harness import machine as machine_of


@pytest.fixture(params=ISAS, scope="session")
def machine(request: pytest.FixtureRequest) -> Machine:
    """Each instruction set this machine has."""
    return machine_of(request.param)
