"""Draws the figures of the documentation from numbers in docs/performance.md: python docs/figures.py."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

DOCS = Path(__file__).parent
ROOMS = (
    ("commands, cli", "command line, chat, completion scripts"),
    ("server | train | bench", "HTTP APIs; trainer and export; measuring"),
    ("api, completion, perplexity", "load, complete, stream, chat, score"),
    ("loader", "files of models, tokenizers, chat templates, architectures, hub"),
    ("onnx", "graphs: format, recognition, operators, runtime"),
    ("runtime", "engine, sampling, KV cache, decoder plan, backend protocol"),
    ("runtime.cpu", "kernels, their compiler, packed weights, threads"),
    ("files, errors", "shared by all"),
)


def results() -> dict[str, list[float]]:
    """Work -> tokens per second of ternrun and its peers, from the first table of the performance page."""
    page = (DOCS / "performance.md").read_text()
    rows = re.findall(r"^\| (2B4T, [^|]+?) \| (.+) \|$", page, re.M)
    found = {}
    for work, cells in rows:
        numbers = [re.match(r"[\d.,]+", cell.strip()) for cell in cells.split("|")]
        found[work] = [float(n[0].replace(",", "")) if n else 0.0 for n in numbers]
    return found


def draw_speed(path: Path) -> None:
    """Bars: ternrun beside its peers."""
    works = ("2B4T, prompt of 128 tokens", "2B4T, decoding", "2B4T, 8 sequences together")
    names = ("ternrun", "ik_llama.cpp", "llama.cpp", "bitnet.cpp")
    table = results()
    figure, axes = plt.subplots(1, len(works), figsize=(9, 2.8))
    for axis, work in zip(axes, works, strict=True):
        values = table[work]
        bars = axis.barh(names, values, color=["#3b6ea8", "#b8c4d2", "#b8c4d2", "#b8c4d2"])
        axis.bar_label(bars, [f"{v:g}" if v else "not measured" for v in values], padding=3, fontsize=8)
        axis.set_title(work.removeprefix("2B4T, "), fontsize=10)
        axis.set_xlim(0, 1.3 * max(values))
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.set_yticks(range(len(names)), names if axis is axes[0] else [""] * len(names))
    figure.suptitle("Tokens per second, shape of BitNet b1.58-2B-4T, two cores of Zen 5", fontsize=10)
    figure.tight_layout()
    figure.savefig(path)


def draw_rooms(path: Path) -> None:
    """The packages, each of which imports only those below it."""
    figure, axis = plt.subplots(figsize=(9, 5))
    for level, (name, what) in enumerate(reversed(ROOMS)):
        axis.add_patch(plt.Rectangle((0, level), 10, 0.86, facecolor="#e8eef5", edgecolor="#3b6ea8"))
        axis.text(0.2, level + 0.43, name, va="center", fontsize=11, weight="bold")
        axis.text(4.2, level + 0.43, what, va="center", fontsize=9)
    axis.annotate("", (10.4, 0.1), (10.4, len(ROOMS) - 0.2), arrowprops={"arrowstyle": "->"})
    axis.text(10.6, len(ROOMS) / 2, "imports", rotation=90, va="center", fontsize=9)
    axis.set_xlim(-0.1, 11)
    axis.set_ylim(-0.1, len(ROOMS))
    axis.axis("off")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    mpl.rcParams["svg.hashsalt"] = "ternrun"  # equal numbers give equal files
    draw_speed(DOCS / "images/speed.svg")
    draw_rooms(DOCS / "images/rooms.svg")
