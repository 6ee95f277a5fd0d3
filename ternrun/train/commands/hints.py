"""What a flag that a training command does not have is called here: trainers agree on few names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches

SETTINGS: dict[str, str] = {  # of `train run`, without dashes: the setting
    "steps": "optim.steps", "max-steps": "optim.steps", "iters": "optim.steps", "max-iters": "optim.steps",
    "num-steps": "optim.steps", "train-steps": "optim.steps", "n-steps": "optim.steps",
    "lr": "optim.matrix_lr", "learning-rate": "optim.matrix_lr", "matrix-lr": "optim.matrix_lr",
    "other-lr": "optim.other_lr", "embedding-lr": "optim.other_lr", "optimizer": "optim.other", "optim": "optim.other",
    "other": "optim.other", "momentum": "optim.momentum", "weight-decay": "optim.weight_decay",
    "wd": "optim.weight_decay",
    "clip": "optim.clip", "grad-clip": "optim.clip", "max-grad-norm": "optim.clip", "z-loss": "optim.z_loss",
    "entropy": "optim.entropy", "dropout": "optim.dropout", "warmup": "optim.warmup_steps",
    "warmup-steps": "optim.warmup_steps", "warmup-iters": "optim.warmup_steps", "decay": "optim.decay",
    "lr-scheduler": "optim.decay", "decay-steps": "optim.decay_steps", "lr-decay-iters": "optim.decay_steps",
    "full-steps": "optim.full_steps",
    "batch": "data.batch", "batch-size": "data.batch", "bs": "data.batch", "b": "data.batch",
    "per-device-train-batch-size": "data.micro_batch", "micro-batch": "data.micro_batch",
    "micro-batch-size": "data.micro_batch", "path": "data.path",
    "mix": "data.mix", "fim": "data.fim", "stutter": "data.stutter", "seams": "data.seams",
    "context": "model.context", "ctx": "model.context", "ctx-size": "model.context", "c": "model.context",
    "context-length": "model.context", "block-size": "model.context", "seq-len": "model.context",
    "seq-length": "model.context", "max-seq-len": "model.context", "dim": "model.dim", "d-model": "model.dim",
    "hidden-size": "model.dim", "n-embd": "model.dim", "layers": "model.n_layers", "n-layers": "model.n_layers",
    "n-layer": "model.n_layers", "num-layers": "model.n_layers", "depth": "model.n_layers", "heads": "model.n_heads",
    "n-heads": "model.n_heads", "n-head": "model.n_heads", "num-heads": "model.n_heads",
    "n-kv-heads": "model.n_kv_heads", "kv-heads": "model.n_kv_heads", "ffn-dim": "model.ffn_dim",
    "intermediate-size": "model.ffn_dim", "head-dim": "model.head_dim", "activation": "model.activation",
    "vocab-size": "model.vocab_size", "sub-norm": "model.sub_norm", "qk-norm": "model.qk_norm", "tied": "model.tied",
    "ternary": "model.ternary", "granularity": "model.granularity", "mhc-streams": "model.mhc_streams",
    "rope-base": "model.rope_base", "rope-theta": "model.rope_base", "norm-eps": "model.norm_eps",
    "seed": "run.seed", "s": "run.seed", "threads": "run.threads", "t": "run.threads", "device": "run.device",
    "precision": "run.precision", "dtype": "run.precision", "fsdp": "run.fsdp", "log-every": "run.log_every",
    "log-interval": "run.log_every", "logging-steps": "run.log_every", "validate-every": "run.validate_every",
    "eval-every": "run.validate_every", "eval-interval": "run.validate_every", "eval-steps": "run.validate_every",
    "validate-windows": "run.validate_windows", "eval-iters": "run.validate_windows",
    "sample-every": "run.sample_every", "sample-prompt": "run.sample_prompt", "save-every": "run.save_every",
    "save-interval": "run.save_every", "save-steps": "run.save_every", "save-minutes": "run.save_minutes",
}  # fmt: skip
_ELSEWHERE: dict[str, str] = {  # of any command: its flag
    "output": "--out", "output-dir": "--out", "out-dir": "--out", "o": "--out", "outfile": "--out", "out-file": "--out",
    "save-dir": "--out", "overwrite": "--force", "yes": "--force", "y": "--force", "f": "--force",
    "val": "--val-share", "val-split": "--val-share", "val-size": "--val-share", "test-size": "--val-share",
    "text-column": "--column", "field": "--column", "max-rows": "--limit", "vocab-size": "--tokenizer bpe:SIZE",
    "outtype": "--type", "quant": "--type", "continue": "--resume", "init-from": "--from", "base": "--from",
    "dataset": "--data", "data-path": "--data", "data-dir": "--data", "config": "the first word",
    "preset": "the first word",
}  # fmt: skip


def hint(unknown: Sequence[str], flags: Collection[str], *, settings: bool) -> str:
    """What the first unknown flag among `unknown` words may have meant, of `flags` or of the settings; may be empty."""
    at = next((i for i, word in enumerate(unknown) if word.startswith("-")), None)
    if at is None:
        return ""
    word, _, value = unknown[at].partition("=")
    name = word.lstrip("-").replace("_", "-").lower()
    if settings and name in SETTINGS:
        following = unknown[at + 1] if at + 1 < len(unknown) and not unknown[at + 1].startswith("--") else "VALUE"
        return f"; settings are changed by --set {SETTINGS[name]}={value or following}"
    known = _ELSEWHERE.get(name)
    if known and (known.split()[0] in flags or not known.startswith("-")):
        return f"; it is {known} here"
    meant = {flag: flag for flag in flags} | {
        f"--{key}": f"--set {SETTINGS[key]}=VALUE" for key in SETTINGS if settings
    }
    near = get_close_matches(f"--{name}", meant, 1, 0.75)
    return f"; did you mean {meant[near[0]]}?" if near else ""
