"""A roofline: what each work reached, under the ceilings of memory and instructions measured beside it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ternrun.bench.suite import Report
from ternrun.errors import MissingExtra, UsageError

GIGA = 1e9
SUFFIXES = (".png", ".svg", ".pdf")


def check(path: str) -> None:
    """Raises MissingExtra without matplotlib, UsageError for a name or folder that no plot can be written to."""
    if find_spec("matplotlib") is None:
        raise MissingExtra("--plot", "plot")
    if Path(path).suffix.lower() not in SUFFIXES or not Path(path).absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: name a {', '.join(SUFFIXES)} file in a folder that exists")


def draw(report: Report, path: str) -> None:
    """Write the plot: operations a byte against operations a second, both logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = [
        (r.operations_per_token / r.bytes_per_token, r.operations_per_token * r.rate.median / GIGA, r.work)
        for r in report.results
        if r.operations_per_token and r.bytes_per_token
    ]
    threads = max(report.ceilings.read)
    bandwidth = report.ceilings.read[threads].best / GIGA
    left, right = min([0.5, *(x / 2 for x, _, _ in points)]), max([4096.0, *(2 * x for x, _, _ in points)])
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="operations a byte read", ylabel="GOPS")
    for name, by_threads in report.ceilings.operations.items():
        top = by_threads[threads] / GIGA
        axes.plot([left, top / bandwidth, right], [left * bandwidth, top, top], label=f"{name}: {top:,.0f} GOPS")
    for x, y, name in points:
        axes.plot([x], [y], "o", color="black")
        axes.annotate(name, (x, y), xytext=(6, -4), textcoords="offset points")
    model = report.results[0].model if report.results else ""
    axes.set_title(f"{model} on {report.machine['cpu']}, {threads} threads, memory {bandwidth:.1f} GB/s")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)
