"""The loss curve of a run as a PNG, if matplotlib is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ternrun.train.loop.run_log import RunLog

_FEW_POINTS = 30  # fewer points are drawn with markers: a line through a single point is invisible


def draw(folder: Path, report: Callable[[str], None]) -> None:
    """Write `loss.png` from `log.jsonl`, or report that matplotlib is missing."""
    if find_spec("matplotlib") is None:
        report("no loss curve drawn: matplotlib is not installed")
        return
    from matplotlib.figure import Figure

    entries = RunLog.entries(folder / "log.jsonl")
    axes = (figure := Figure(figsize=(8, 4.5), layout="constrained")).subplots()
    for key, label in (("loss", "training"), ("val_loss", "validation")):
        points = [(e["step"], e[key]) for e in entries if key in e]
        marker = "o" if key == "val_loss" or len(points) < _FEW_POINTS else ""
        axes.plot([x for x, _ in points], [y for _, y in points], label=label, marker=marker, linewidth=1)
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(folder / "loss.png", dpi=120)
