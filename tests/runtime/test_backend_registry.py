from __future__ import annotations

import sys

import pytest

from ternrun.errors import UsageError
from ternrun.runtime.backend.registry import select_backend


@pytest.mark.cpu_backend
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_cpu_is_picked_and_says_why(device: str) -> None:
    backend, reason = select_backend(device)  # type: ignore[arg-type]
    assert backend.name == "cpu"
    assert reason
    assert backend is sys.modules["ternrun.runtime.cpu"]


def test_cuda_that_is_not_there_is_refused_with_the_remedy() -> None:
    with pytest.raises(UsageError, match="--device cpu|pip install"):
        select_backend("cuda")
