"""The report for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ternrun.bench import peers, products
from ternrun.bench.ceilings import INSTRUCTIONS
from ternrun.bench.suite import Report, Result
from ternrun.bench.timing import Rate

GIGA = 1e9


def lines(report: Report, *, phases: bool = False) -> Iterator[str]:
    """The whole report; `phases` adds where the time of a step goes."""
    yield from _machine(report)
    if report.products:
        yield from ("", *_products(report.products))
    if report.results:
        yield from ("", *_results(report.results))
    if phases:
        for result in report.results:
            yield from _phases(result)
    if report.comparisons:
        yield from ("", *_comparisons(report.comparisons))
    yield from ("", f"machine while measuring: {report.noise.verdict()}")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they must be, the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    ]


def _machine(report: Report) -> Iterator[str]:
    about: dict[str, Any] = report.machine
    yield f"{about['cpu']}, {about['cores']} cores, {about['memory_bytes'] / 2**30:.0f} GiB; {about['system']}"
    features = " ".join(about["features"]) or "none that matter"
    yield f"kernels: {about['isa']} ({about['isa_reason']}); features: {features}"
    for threads, rate in report.ceilings.read.items():
        yield f"memory read, {_threads(threads)}: {rate.median / GIGA:.1f} GB/s (best {rate.best / GIGA:.1f})"
    for name, by_threads in report.ceilings.operations.items():
        figures = ", ".join(f"{value / GIGA:,.0f} GOPS on {_threads(n)}" for n, value in sorted(by_threads.items()))
        yield f"ceiling of {name} ({INSTRUCTIONS[name][1]}): {figures}"


def _threads(n: int) -> str:
    return f"{n} thread{'s' if n > 1 else ''}"


def _products(found: Sequence[products.Product]) -> list[str]:
    rows = [
        [
            f"{p.rows} x {p.cols}", "GEMV" if p.tokens == 1 else f"GEMM, {p.tokens}", str(p.threads),
            f"{p.operations.median / GIGA:,.0f}", f"{p.operations.best / GIGA:,.0f}", f"{p.operations.spread:.0%}",
            f"{p.share:.0%}", p.kernel,
        ]
        for p in found
    ]  # fmt: skip
    return table(["ternary product", "tokens", "threads", "GOPS", "best", "spread", "of ceiling", "kernel"], rows)


def _results(results: Sequence[Result]) -> list[str]:
    rows = [[r.work, *_rate(r), *_shares(r)] for r in results]
    first = results[0]
    title = f"{first.model}, head {first.head}, {_threads(first.threads)}; {first.kernel}"
    head = ["work", "tokens/s", "best", "spread", "MB/token", "of read bandwidth", "of compute ceiling", "Python"]
    return [title, *table(head, rows)]


def _rate(r: Result) -> list[str]:
    if r.work == "load":
        return [f"{1 / r.rate.median:.3f} s", f"{1 / r.rate.best:.3f} s", f"{r.rate.spread:.0%}"]
    return [f"{r.rate.median:,.1f}", f"{r.rate.best:,.1f}", f"{r.rate.spread:.0%}"]


def _shares(r: Result) -> list[str]:
    if r.peak_rss_bytes is not None:
        return [f"peak {r.peak_rss_bytes / 1e6:,.0f} MB", "", "", ""]
    return [
        f"{(r.bytes_per_token or 0) / 1e6:,.1f}", f"{r.read_share or 0:.0%}", f"{r.compute_share or 0:.0%}",
        f"{r.phases.python_share:.1%}" if r.phases else "",
    ]  # fmt: skip


def _phases(result: Result) -> Iterator[str]:
    if result.phases is None:
        return
    step = result.phases.step
    yield ""
    yield f"{result.work}: one step of {1e3 * step:.3f} ms"
    parts = [*result.phases.kernels.items(), ("Python", result.phases.python)]
    yield from table(["where", "ms", "share"], [[name, f"{1e3 * s:.3f}", f"{s / step:.1%}"] for name, s in parts])


def _comparisons(found: Sequence[peers.Comparison]) -> list[str]:
    rows = [[c.work, _pair(c.work, c.ours), _pair(c.work, c.theirs), f"{c.ratio:.2f}"] for c in found]
    return table(["turn by turn", "ternrun (best)", f"{found[0].peer} (best)", "times as fast"], rows)


def _pair(work: str, rate: Rate) -> str:
    if work == "load":
        return f"{1 / rate.median:.3f} s ({1 / rate.best:.3f} s)"
    return f"{rate.median:,.1f} ({rate.best:,.1f})"
