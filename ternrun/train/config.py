"""A training run as data: TOML with four tables, each a frozen record whose unknown keys are refused by name.

`ternrun train run PRESET_OR_FILE --set table.key=value`: presets stand in `presets/`, one file each.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from ternrun.errors import ConfigError
from ternrun.runtime.config import Activation, _Record
from ternrun.train.model.bitlinear import GROUP, Granularity

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape(_Record):
    """The decoder to train."""

    vocab_size: int = 0  # 0: the tokenizer's
    context: int = 512
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    ffn_dim: int
    head_dim: int = 0  # 0: dim / n_heads
    activation: Activation = "silu"
    sub_norm: bool = True  # RMSNorm before the output projections (SubLN, arXiv 2210.06423)
    qk_norm: bool = False
    tied: bool = True
    ternary: bool = True  # False: the full-precision twin
    granularity: Granularity = "tensor"
    mhc_streams: int = 1
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name, low, high in (
            ("context", 1, 2**20), ("dim", 1, 2**16), ("n_layers", 1, 1024), ("n_heads", 1, 1024),
            ("n_kv_heads", 1, self.n_heads), ("ffn_dim", 1, 2**18), ("vocab_size", 0, 2**24), ("head_dim", 0, 4096),
            ("rope_base", 1.001, 1e12), ("norm_eps", 0, 1),
        ):  # fmt: skip
            self._range(name, low, high)
        self._choice("activation", ("silu", "relu2"))
        self._choice("granularity", ("tensor", "row", "group"))
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(f"{self.n_heads} query heads cannot share {self.n_kv_heads} key/value heads evenly")
        if self.mhc_streams not in (1, 2, 4):
            raise ConfigError(f"mhc_streams must be 1, 2 or 4, not {self.mhc_streams}")
        if self.width % 2 or not self.width:
            raise ConfigError(f"head width {self.width} must be even, and not 0, for rotary embedding")
        if self.granularity == "group" and any(n % GROUP for n in (self.dim, self.ffn_dim, self.n_heads * self.width)):
            raise ConfigError(f"granularity 'group' needs dim, ffn_dim and heads x width divisible by {GROUP}")

    @property
    def width(self) -> int:
        """Elements of one head."""
        return self.head_dim or self.dim // self.n_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation(_Record):
    """Muon for matrices; AdamW or Lion for embeddings, norms and mHC; warm-up, stable, decay."""

    matrix_lr: float = 0.02
    other: Literal["adamw", "lion"] = "adamw"
    other_lr: float = 3e-3
    momentum: float = 0.95
    weight_decay: float = 0.0  # of matrices; goes to 0 with the decay of the learning rate
    clip: float = 1.0  # largest global gradient norm; 0: off
    z_loss: float = 1e-4
    entropy: float = 0.0  # weight of the predictions' entropy, which is rewarded; 0: off
    dropout: float = 0.0
    steps: int = 0  # 0: until stopped
    warmup_steps: int = 100
    decay_steps: int = 0  # the last so many of `steps`
    decay: Literal["linear", "sqrt"] = "sqrt"
    full_steps: int = 0  # the first so many learn in full precision, before weights become ternary (arXiv 2502.11895)

    def __post_init__(self) -> None:
        for name, high in (
            ("matrix_lr", 10),
            ("other_lr", 10),
            ("clip", 10**6),
            ("z_loss", 1),
            ("entropy", 1),
            ("weight_decay", 10),
        ):
            self._range(name, 0, high)
        self._range("momentum", 0, 0.9999)
        self._range("dropout", 0, 0.9)
        for name in ("steps", "warmup_steps", "decay_steps", "full_steps"):
            self._range(name, 0, 2**40)
        self._choice("other", ("adamw", "lion"))
        self._choice("decay", ("linear", "sqrt"))
        if self.steps and self.decay_steps > self.steps:
            raise ConfigError(f"decay_steps {self.decay_steps} exceeds steps {self.steps}")
        if self.steps and self.full_steps > self.steps:
            raise ConfigError(f"full_steps {self.full_steps} exceeds steps {self.steps}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data(_Record):
    """What is read: a folder made by `ternrun train data`."""

    path: str = ""
    mix: dict[str, float] = field(default_factory=dict)  # further folders, and the share of windows each gives
    batch: int = 16  # windows a step, over all ranks
    micro_batch: int = 0  # windows a forward pass; 0: all of the rank's
    fim: float = 0.0  # share of windows turned prefix / suffix / middle
    stutter: float = 0.0  # share of windows with lines repeated, to learn what comes after repeats
    seams: float = 0.0  # share of windows cut inside tokens, to go on from where prompts end

    def __post_init__(self) -> None:
        for folder, share in self.mix.items():
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
                raise ConfigError(f"data.mix: the share of {folder!r} must be a number between 0 and 1, not {share!r}")
        if sum(self.mix.values()) >= 1:
            raise ConfigError(f"data.mix: the shares add up to {sum(self.mix.values()):g}, and leave data.path nothing")
        self._range("batch", 1, 2**20)
        self._range("micro_batch", 0, 2**20)
        self._range("fim", 0, 1)
        self._range("stutter", 0, 1)
        self._range("seams", 0, 1)
        if self.stutter + self.seams > 1:
            raise ConfigError(f"stutter {self.stutter:g} and seams {self.seams:g} are more than all windows")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(_Record):
    """How the run is carried out and what it writes."""

    seed: int = 1
    threads: int = 0  # 0: torch's choice
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["bf16", "f32"] = "bf16"
    compile: bool = False  # on a CPU where there is a C++ compiler only
    fsdp: bool = False
    log_every: int = 10
    validate_every: int = 500
    validate_windows: int = 0  # 0: the whole validation part
    sample_every: int = 0  # 0: no text samples
    sample_prompt: str = ""
    save_every: int = 500
    save_minutes: float = 10.0  # save after so long even between steps of save_every

    def __post_init__(self) -> None:
        self._range("seed", 0, 2**32 - 1)
        self._range("threads", 0, 1024)
        for name in ("log_every", "validate_every", "save_every"):
            self._range(name, 1, 2**40)
        for name in ("validate_windows", "sample_every"):
            self._range(name, 0, 2**40)
        self._range("save_minutes", 0, 10**6)
        self._choice("device", ("auto", "cpu", "cuda"))
        self._choice("precision", ("bf16", "f32"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One run."""

    model: Shape
    data: Data = field(default_factory=Data)
    optim: Optimisation = field(default_factory=Optimisation)
    run: Run = field(default_factory=Run)

    @classmethod
    def from_dict(cls, tables: dict[str, Any]) -> Self:
        """Raises ConfigError for unknown tables, unknown keys, missing keys and values of the wrong kind."""
        kinds: dict[str, Any] = {"model": Shape, "data": Data, "optim": Optimisation, "run": Run}
        for name, table in tables.items():
            if name not in kinds:
                raise ConfigError(f"a training config has no table {name!r}; it has {', '.join(kinds)}")
            if not isinstance(table, dict):
                raise ConfigError(f"{name!r} must be a table, not {table!r}")
            _check_keys(name, table, [f.name for f in fields(kinds[name])])
            for f in fields(kinds[name]):
                _check_kind(f"{name}.{f.name}", table.get(f.name), f.type)
        missing = [
            f for f in ("dim", "n_layers", "n_heads", "n_kv_heads", "ffn_dim") if f not in tables.get("model", {})
        ]
        if missing:
            raise ConfigError(f"the config's model table lacks {', '.join(missing)}")
        return cls(**{name: kind.from_dict(tables.get(name, {})) for name, kind in kinds.items()})

    def as_dict(self) -> dict[str, Any]:
        """The tables, as `from_dict` takes them."""
        return asdict(self)

    def in_full(self, step: int) -> bool:
        """Whether a model that is to be ternary still learns in full precision at `step` (from 0)."""
        return self.model.ternary and step < self.optim.full_steps


def load_config(source: str, changes: Sequence[str] = ()) -> TrainConfig:
    """The preset or TOML file `source`, with `table.key=value` changes. Raises ConfigError."""
    path = Path(source)
    if not path.is_file():
        path = PRESETS / f"{source}.toml"
    if not path.is_file():
        raise ConfigError(_no_config(source))
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    return TrainConfig.from_dict(fitted(tables, changed(tables, changes)))


def _no_config(source: str) -> str:
    """What to say of a name that is neither a file nor a preset."""
    names = sorted(p.stem for p in PRESETS.glob("*.toml"))
    near = get_close_matches(source, names, 1)
    told = f"did you mean {near[0]}? " if near else ""
    if (Path(source) / "manifest.json").is_file():
        told = f"it is a data folder: ternrun train run PRESET --data {source} --out RUN; "
    return f"{source!r} is neither a config file nor a preset; {told}presets are {', '.join(names)}"


def data_command(source: str, folder: Path) -> str:
    """The command that makes the data folder of a config: the one that a preset's comment states, or a plain one."""
    path = PRESETS / f"{source}.toml"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    stated = (line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    ours = (line for line in stated if line.startswith("ternrun train data") and line.endswith(f"--out {folder}"))
    return next(ours, f"ternrun train data SOURCE --out {folder}")


def fitted(tables: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """`changed`, where phases longer than its fewer steps get the share of the steps that they have in `tables`.

    A preset of 3,000 steps that ends in a decay of 1,500 can so be tried with 5. A phase that was changed stays.
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


def changed(tables: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """`tables` with `table.key=value` settings applied; values are TOML, or plain words."""
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


def _check_keys(name: str, table: dict[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, 1)
            told = f"; did you mean {name}.{near[0]}?" if near else f"; it has {', '.join(known)}"
            raise ConfigError(f"the table {name} of a training config has no key {key!r}{told}")


def _check_kind(name: str, value: Any, annotation: Any) -> None:
    kinds = {"int": int, "float": (int, float), "bool": bool, "str": str, "dict[str, float]": dict}
    wanted: Any = kinds.get(str(annotation), str)
    if value is None or (isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))):
        return
    raise ConfigError(f"{name} must be of type {annotation}, not {value!r}")
