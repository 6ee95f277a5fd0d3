"""The pooling that a sentence-transformers folder states: how the hidden states of a text become one vector."""

from __future__ import annotations

from pathlib import Path

from ternrun.loader.json_files import read_json
from ternrun.runtime.config import Pooling

_MODES = {  # the flags of the older spelling -> the names of the newer one
    "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken", "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}  # fmt: skip
ENGINE_POOLING: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}  # those the engine does


def stated_modes(folder: Path) -> list[str]:
    """Names of the poolings that the config.json of a Pooling module asks for; several are to be concatenated.

    Raises LoadError for a file that is damaged.
    """
    config = read_json(folder / "config.json")
    named = config.get("pooling_mode")
    if named is None:
        return [name for flag, name in _MODES.items() if config.get(flag) is True]
    return [str(name) for name in (named if isinstance(named, list) else [named])]


def engine_pooling(folder: Path) -> Pooling:
    """What the engine is to do for the model in `folder`; `none` where that is stated nowhere or is more than it does.

    Raises LoadError for a file that is damaged.
    """
    pooling = folder / "1_Pooling"
    modes = stated_modes(pooling) if (pooling / "config.json").is_file() else []
    return ENGINE_POOLING.get(modes[0], "none") if len(modes) == 1 else "none"
