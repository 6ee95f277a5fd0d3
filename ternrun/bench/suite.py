"""A whole benchmark: the machine, then products on their own, then a model's works one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ternrun.bench import first_token, machine, peers, products, traffic
from ternrun.bench.ceilings import Ceilings, Probe
from ternrun.bench.files import Wanted, provided
from ternrun.bench.noise import Noise
from ternrun.bench.phases import Phases, profile
from ternrun.bench.subject import Subject, loaded, tokens
from ternrun.bench.synthetic import SHAPES
from ternrun.bench.timing import Rate
from ternrun.bench.works import Work, parse
from ternrun.loader.model import open_model
from ternrun.runtime.backend.protocol import ProgressCallback
from ternrun.runtime.config import KvType
from ternrun.runtime.cpu import autotune
from ternrun.runtime.cpu.compile.kernel_cache import CompileProgress
from ternrun.runtime.cpu.model import CpuModel, default_threads

Tell = Callable[[int, int, str], None]  # works done, works in all, what is being done


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, and how often."""

    wanted: Wanted
    works: str
    threads: int = 0  # 0: one for every core
    runs: int = 5
    kv_type: KvType = "f16"
    peer: peers.Peer | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One work: tokens a second, and how near that is to what the machine can do.

    `load` counts one token, the first; what it has no figure for is None.
    """

    work: str
    model: str
    head: str
    threads: int
    rate: Rate
    kernel: str
    bytes_per_token: float | None = None
    operations_per_token: float | None = None
    read_share: float | None = None
    compute_share: float | None = None
    phases: Phases | None = None
    peak_rss_bytes: int | None = None

    def json(self, *, phases: bool) -> dict[str, Any]:
        """As it stands in the JSON object."""
        entry = {
            "work": self.work, "model": self.model, "head": self.head, "threads": self.threads,
            "tokens_per_s": self.rate.json, "bytes_per_token": self.bytes_per_token,
            "share_of_read_bandwidth": self.read_share, "share_of_compute_ceiling": self.compute_share,
            "kernel": self.kernel,
        }  # fmt: skip
        return entry | ({"profile": self.phases.json} if phases and self.phases else {})


@dataclass(slots=True)
class Report:
    """Everything that was measured."""

    machine: dict[str, Any]
    ceilings: Ceilings
    noise: Noise
    products: list[products.Product] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    comparisons: list[peers.Comparison] = field(default_factory=list)

    def json(self, *, phases: bool = False) -> dict[str, Any]:
        """The JSON object; `phases` adds the breakdown of a step to every result."""
        kernels = [product.json for product in self.products]
        about = self.machine | self.ceilings.json | {"kernels": kernels, "noise": self.noise.verdict()}
        found: dict[str, Any] = {"machine": about, "results": [r.json(phases=phases) for r in self.results]}
        if self.comparisons:
            found["against"] = [comparison.json for comparison in self.comparisons]
        return found


def run(options: Options, tell: Tell) -> Report:
    """Measure. Raises UsageError for what cannot be measured, LoadError for a file that cannot be run."""
    wanted, noise = options.wanted, Noise()
    works = parse(options.works, context_of(wanted))  # a wrong name should not cost the compiling of kernels
    compiling = _compiling(tell, len(works) + 1)
    isa, threads = autotune.select_isa(tally=CompileProgress(compiling)), options.threads or default_threads()
    total = len(works) + 1
    tell(0, total, "machine")
    probe = Probe(isa, threads, compiling)
    report = Report(machine.describe(isa), probe.ceilings(), noise)
    done = 1
    if Work("kernels") in works:
        for product in products.measure(isa, threads, report.ceilings, options.runs, compiling):
            report.products.append(product)
            tell(done, total, f"{product.rows} x {product.cols}, {product.tokens} tokens")
        done += 1
    of_model = [work for work in works if work.kind not in ("kernels", "machine")]
    if not of_model:
        return report
    tell(done, total, f"preparing {wanted.model}")
    with (
        provided(wanted) as path,
        loaded(path, of_model, threads, options.runs, compiling, options.kv_type) as subject,
    ):
        for work in of_model:
            tell(done, total, work.name)
            result = measure(subject, path, work, probe, report.ceilings)
            report.results.append(replace(result, model=wanted.model))
            noise.saw(result.rate.spread)
            if options.peer and options.peer.can(work):
                report.comparisons.append(peers.compare(subject, options.peer, path, work, options.runs))
            done += 1
    return report


def context_of(wanted: Wanted) -> int:
    """Tokens that the model was made for."""
    if wanted.is_shape:
        return SHAPES[wanted.model][0].context_length
    with provided(wanted) as path, open_model(path) as file:
        return file.weights.config.context_length


def _compiling(tell: Tell, works: int) -> ProgressCallback:
    return lambda done, _: tell(0, works, f"compiling kernels, this once: {done}")


def measure(subject: Subject, path: Path, work: Work, probe: Probe, ceilings: Ceilings) -> Result:
    """One work. Its bandwidth is held against what memory gave right before and right after."""
    model, threads = subject.model, probe.threads
    head = head_type(model)
    if work.kind == "load":
        starts = [first_token.measure(path, threads) for _ in range(subject.runs + 1)][1:]
        rate = Rate.of(1, [start.seconds for start in starts])
        peak = max(start.peak_rss_bytes for start in starts)
        return Result(work.name, "", head, threads, rate, traffic.kernel(model), peak_rss_bytes=peak)
    before = probe.read(threads, 3).best
    rate = Rate.of(tokens(work), subject.seconds(work))
    bandwidth = max(before, probe.read(threads, 3).best)
    least = traffic.of(model, work, ceilings.ternary)
    best = {name: by_threads[threads] for name, by_threads in ceilings.operations.items()}
    return Result(
        work.name, "", head, threads, rate, traffic.kernel(model),
        bytes_per_token=least.bytes, operations_per_token=sum(least.operations.values()),
        read_share=rate.median * least.bytes / bandwidth,
        compute_share=least.share_of_compute(rate.median, best),
        phases=profile(subject, work, probe.cycles_per_second()),
    )  # fmt: skip


def head_type(model: CpuModel) -> str:
    """Encoding of the output matrix."""
    matrix = model.matrices[model.head_name]
    return (matrix.tensor.type if hasattr(matrix, "tensor") else "ternary").lower()
