"""Loading a training configuration: a preset or TOML file, with `--set table.key=value` changes applied."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ternrun.errors import ConfigError
from ternrun.train.config import TrainConfig

PRESETS = Path(__file__).parent / "presets"


def load_config(source: str, changes: Sequence[str] = ()) -> TrainConfig:
    """Read the preset or TOML file `source` and apply `table.key=value` changes.

    Raises ConfigError if the source does not exist, is not valid TOML, or a setting is unknown or out of range.
    """
    path = Path(source)
    if not path.is_file():
        path = PRESETS / f"{source}.toml"
    if not path.is_file():
        raise ConfigError(_unknown_source(source))
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    return TrainConfig.from_dict(scale_phases(tables, apply_changes(tables, changes)))


def _unknown_source(source: str) -> str:
    """The error message for a name that is neither a file nor a preset."""
    presets = sorted(p.stem for p in PRESETS.glob("*.toml"))
    matches = get_close_matches(source, presets, 1)
    hint = f"did you mean {matches[0]}? " if matches else ""
    if (Path(source) / "manifest.json").is_file():
        hint = f"it is a data folder: ternrun train run PRESET --data {source} --out RUN; "
    return f"{source!r} is neither a config file nor a preset; {hint}presets are {', '.join(presets)}"


def data_command(source: str, folder: Path) -> str:
    """The command that creates the data folder of a config: the one in a preset's comment, else a generic one."""
    path = PRESETS / f"{source}.toml"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    comments = (line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    commands = (c for c in comments if c.startswith("ternrun train data") and c.endswith(f"--out {folder}"))
    return next(commands, f"ternrun train data SOURCE --out {folder}")


def scale_phases(tables: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """Shorten warm-up, decay and full-precision phases in proportion if `changed` has fewer steps than `tables`.

    A preset of 3,000 steps that ends with a decay of 1,500 can then be tried with 5 steps. A phase that was changed
    explicitly, or still fits, keeps its length.
    """
    before, after = tables.get("optim"), changed.get("optim")
    if not isinstance(before, dict) or not isinstance(after, dict):
        return changed
    steps, planned = after.get("steps"), before.get("steps")
    if type(steps) is not int or type(planned) is not int or not 0 < steps < planned:
        return changed
    shorter = {
        key: before[key] * steps // planned
        for key in ("warmup_steps", "decay_steps", "full_steps")
        if type(before.get(key)) is int and after[key] == before[key] > steps
    }
    return changed | {"optim": after | shorter}


def apply_changes(tables: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A copy of `tables` with `table.key=value` settings applied; a value is TOML, or else a plain string."""
    tables = {name: dict(table) if isinstance(table, dict) else table for name, table in tables.items()}
    for change in changes:
        target, equals, text = change.partition("=")
        table, dot, key = target.strip().partition(".")
        if not (equals and dot and key):
            raise ConfigError(f"--set takes table.key=value, not {change!r}")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        tables.setdefault(table, {})[key] = value
    return tables
