"""Configuration of a training run: four frozen records, one for each table of a TOML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal, Self

from ternrun.errors import ConfigError
from ternrun.runtime.config import Activation, _Record

Granularity = Literal["tensor", "row", "group"]  # which weights share one scale
GROUP_SIZE = 256  # columns that share a scale with granularity "group": the block size of TQ1_0 and TQ2_0


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig(_Record):
    """Table `model`: the decoder to train."""

    vocab_size: int = 0  # 0: the tokenizer's vocabulary size
    context: int = 512  # tokens
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    ffn_dim: int
    head_dim: int = 0  # 0: dim / n_heads
    activation: Activation = "silu"
    sub_norm: bool = True  # RMSNorm before the output projections (SubLN, arXiv 2210.06423)
    qk_norm: bool = False
    tied: bool = True  # the output head shares the embedding's weights
    ternary: bool = True  # False trains the same model in full precision
    granularity: Granularity = "tensor"
    mhc_streams: int = 1  # residual streams (arXiv 2601.05732)
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
        width = self.head_width
        if width % 2 or not width:
            raise ConfigError(f"head width {width} must be even, and not 0, for rotary embedding")
        if self.granularity == "group" and any(n % GROUP_SIZE for n in (self.dim, self.ffn_dim, self.n_heads * width)):
            raise ConfigError(f"granularity 'group' needs dim, ffn_dim and heads x width divisible by {GROUP_SIZE}")

    @property
    def head_width(self) -> int:
        """Elements of one head."""
        return self.head_dim or self.dim // self.n_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig(_Record):
    """Table `data`: the training windows. Folders are made by `ternrun train data`."""

    path: str = ""
    mix: dict[str, float] = field(default_factory=dict)  # additional data folder -> its share of all windows
    batch: int = 16  # windows per step, over all ranks
    micro_batch: int = 0  # windows per forward pass; 0: all windows of the rank
    fim: float = 0.0  # share of windows rearranged as prefix, suffix, middle
    stutter: float = 0.0  # share of windows with repeated lines (`data/repetition.py`)
    seams: float = 0.0  # share of windows cut inside tokens (`data/token_boundaries.py`)

    def __post_init__(self) -> None:
        for folder, share in self.mix.items():
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
                raise ConfigError(f"data.mix: the share of {folder!r} must be a number between 0 and 1, not {share!r}")
        if sum(self.mix.values()) >= 1:
            raise ConfigError(f"data.mix: the shares add up to {sum(self.mix.values()):g}, and leave data.path nothing")
        self._range("batch", 1, 2**20)
        self._range("micro_batch", 0, 2**20)
        for name in ("fim", "stutter", "seams"):
            self._range(name, 0, 1)
        if self.stutter + self.seams > 1:
            raise ConfigError(f"stutter {self.stutter:g} and seams {self.seams:g} add up to more than 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig(_Record):
    """Table `optim`: Muon for matrices, AdamW or Lion for all other parameters, and a warmup-stable-decay schedule."""

    matrix_lr: float = 0.02
    other: Literal["adamw", "lion"] = "adamw"
    other_lr: float = 3e-3
    momentum: float = 0.95
    weight_decay: float = 0.0  # of matrices; decays with the learning rate
    clip: float = 1.0  # largest global gradient norm; 0: no clipping
    z_loss: float = 1e-4
    entropy: float = 0.0  # weight of the entropy bonus; 0: off
    dropout: float = 0.0
    steps: int = 0  # 0: train until stopped
    warmup_steps: int = 100
    decay_steps: int = 0  # the last steps of `steps`
    decay: Literal["linear", "sqrt"] = "sqrt"
    full_steps: int = 0  # first steps in full precision, before weights become ternary (arXiv 2502.11895)

    def __post_init__(self) -> None:
        for name, high in (
            ("matrix_lr", 10), ("other_lr", 10), ("clip", 10**6), ("z_loss", 1), ("entropy", 1), ("weight_decay", 10),
            ("momentum", 0.9999), ("dropout", 0.9), ("steps", 2**40), ("warmup_steps", 2**40), ("decay_steps", 2**40),
            ("full_steps", 2**40),
        ):  # fmt: skip
            self._range(name, 0, high)
        self._choice("other", ("adamw", "lion"))
        self._choice("decay", ("linear", "sqrt"))
        for name in ("decay_steps", "full_steps"):
            if self.steps and getattr(self, name) > self.steps:
                raise ConfigError(f"{name} {getattr(self, name)} exceeds steps {self.steps}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(_Record):
    """Table `run`: devices, precision, logging, validation and checkpoints."""

    seed: int = 1
    threads: int = 0  # 0: torch's default
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["bf16", "f32"] = "bf16"
    compile: bool = False  # on a CPU, compiling needs a C++ compiler
    fsdp: bool = False
    log_every: int = 10  # steps, as all `*_every`
    validate_every: int = 500
    validate_windows: int = 0  # 0: the whole validation part
    sample_every: int = 0  # 0: no text samples
    sample_prompt: str = ""
    save_every: int = 500
    save_minutes: float = 10.0  # also save when the last save was this long ago

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
    """All settings of one run."""

    model: DecoderConfig
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @classmethod
    def from_dict(cls, tables: dict[str, Any]) -> Self:
        """Build a config from the tables of a TOML file.

        Raises ConfigError for unknown tables, unknown keys, missing keys and values of the wrong type.
        """
        records: dict[str, Any] = {
            "model": DecoderConfig, "data": DataConfig, "optim": OptimizerConfig, "run": RunConfig,
        }  # fmt: skip
        for name, table in tables.items():
            if name not in records:
                raise ConfigError(f"a training config has no table {name!r}; it has {', '.join(records)}")
            if not isinstance(table, dict):
                raise ConfigError(f"{name!r} must be a table, not {table!r}")
            _check_table(name, table, records[name])
        required = ("dim", "n_layers", "n_heads", "n_kv_heads", "ffn_dim")
        if missing := [key for key in required if key not in tables.get("model", {})]:
            raise ConfigError(f"the config's model table lacks {', '.join(missing)}")
        return cls(**{name: record.from_dict(tables.get(name, {})) for name, record in records.items()})

    def as_dict(self) -> dict[str, Any]:
        """The tables, as `from_dict` takes them."""
        return asdict(self)

    def in_full_precision(self, step: int) -> bool:
        """Whether a ternary model still trains in full precision at `step` (from 0)."""
        return self.model.ternary and step < self.optim.full_steps


def _check_table(name: str, table: dict[str, Any], record: Any) -> None:
    """Raise ConfigError for a key that `record` does not have, or a value of the wrong type."""
    types = {f.name: f.type for f in fields(record)}
    for key, value in table.items():
        if key not in types:
            raise ConfigError(f"the table {name} of a training config has no key {key!r}{_hint(name, key, [*types])}")
        _check_type(f"{name}.{key}", value, types[key])


def _hint(table: str, key: str, known: Sequence[str]) -> str:
    near = get_close_matches(key, known, 1)
    return f"; did you mean {table}.{near[0]}?" if near else f"; it has {', '.join(known)}"


def _check_type(name: str, value: Any, annotation: Any) -> None:
    types = {"int": int, "float": (int, float), "bool": bool, "str": str, "dict[str, float]": dict}
    expected: Any = types.get(str(annotation), str)
    if value is None or (isinstance(value, expected) and (expected is bool or not isinstance(value, bool))):
        return
    raise ConfigError(f"{name} must be of type {annotation}, not {value!r}")
