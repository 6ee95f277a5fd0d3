"""How the server runs; what is not here is the engine's (`EngineConfig`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from ternrun.errors import ConfigError, UsageError
from ternrun.runtime.config import Pooling

MAX_KEY_FILE = 1 << 20  # bytes

_RANGES = {
    "port": (0, 65535), "queue": (0, 100_000), "timeout": (0, 10**6), "stall": (1, 10**6), "drain": (0, 10**6),
    "max_body": (1024, 2**30), "max_prompts": (1, 4096), "max_tokens": (0, 2**24),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Raises ConfigError for values out of range."""

    host: str = "127.0.0.1"  # or several, separated by commas
    port: int = 8080  # 0: any that is free
    unix_socket: str = ""  # a path; in place of host and port
    alias: str = ""  # the model's name in answers; empty: the file's own
    api_keys: tuple[str, ...] = ()  # empty: everybody may ask
    cors: tuple[str, ...] = ()  # origins whose pages may ask; "*": all; "localhost": those of this machine
    page: bool = True  # at /
    allow_hosts: tuple[str, ...] = ()  # names this machine goes by, beside localhost and addresses
    certificate: str = ""  # PEM file; TLS where given
    private_key: str = ""  # PEM file; empty: in the certificate's file
    queue: int = 64  # sequences that may wait beside those that run
    timeout: float = 0.0  # seconds a request may take; 0: any
    stall: float = 60.0  # seconds that a client may take to send its request, or to read what it was sent
    drain: float = 30.0  # seconds that requests may go on after SIGTERM
    max_body: int = 8 << 20  # bytes
    max_prompts: int = 128  # prompts of a request times its n
    pooling: str = ""  # of embeddings: mean, cls, last or none; empty: what the model's file says
    max_tokens: int = 0  # that an answer may have, whatever is asked for; 0: as many as the context holds
    context_shift: bool = False  # a sequence that fills its context drops the middle of it, and goes on
    slot_save_path: str = ""  # a folder for llama.cpp's saved slots; empty: none are saved
    strict: bool = False  # fields without effect and unknown ones are refused
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of fields that a request leaves out; see `defaults`

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} must be from {low} to {high}, not {value}")
        if self.pooling not in ("", *get_args(Pooling)):
            raise ConfigError(f"pooling must be one of {', '.join(get_args(Pooling))}, not {self.pooling!r}")
        if any(len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key for key in self.api_keys):
            raise ConfigError("an API key must have at least 8 printable ASCII characters and no space")
        if self.slot_save_path and not Path(self.slot_save_path).is_dir():
            raise ConfigError(f"{self.slot_save_path} is no folder that slots could be saved in")
        if self.private_key and not self.certificate:
            raise ConfigError("a private key needs a certificate beside it")


def hosts(config: ServerConfig) -> tuple[str, ...]:
    """The addresses to listen on."""
    return tuple(host.strip().lower() for host in config.host.split(","))


def read_keys(path: str) -> tuple[str, ...]:
    """The API keys in a file: one a line; empty lines and those that begin with # do not count. Raises UsageError."""
    file = Path(path)
    try:
        if file.stat().st_size > MAX_KEY_FILE:
            raise UsageError(f"{path} is too large for a file of API keys")
        lines = [line.strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the API keys in {path} cannot be read: {error}") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise UsageError(f"{path} holds no API key: nobody, or everybody, would be let in")
    return keys
