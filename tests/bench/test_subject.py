"""Works on a tiny model: what is counted is what runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ternrun.bench import products, traffic
from ternrun.bench.ceilings import Ceilings
from ternrun.bench.phases import profile
from ternrun.bench.subject import Subject, loaded, tokens
from ternrun.bench.works import DECODED, Work
from ternrun.runtime.backend.protocol import Batch
from ternrun.runtime.cpu.compile import isa
from tests.fakes import SHAPE, fake_gguf, fake_weights

WORKS = [Work("pp", 200), Work("tg", 5), Work("batch", 3), Work("ctx", 128)]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    path = fake_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", fake_weights())
    with loaded(path, WORKS, 2, 1) as found:
        yield found


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_steps_bytes_and_tokens_are_those_of_the_model(
    subject: Subject, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = subject.model
    batches: list[Batch] = []
    forward = model.forward

    def counted(batch: Batch) -> Any:
        if model.cycles is subject.cycles:  # the clock runs
            batches.append(batch)
        return forward(batch)

    decode = model.decode

    def counted_steps(batch: Batch, *args: Any) -> Any:
        chosen = decode(batch, *args)
        if model.cycles is subject.cycles:
            steps = range(len(chosen[0]) if chosen else 0)
            batches.extend(batch._replace(positions=[p + k for p in batch.positions]) for k in steps)
        return chosen

    monkeypatch.setattr(model, "forward", counted)
    monkeypatch.setattr(model, "decode", counted_steps)
    subject.once(work)
    assert sum(len(b.tokens) for b in batches) == tokens(work)
    steps, outputs, rows, positions = traffic._steps(model, work)
    assert (len(batches), sum(len(b.outputs) for b in batches), tokens(work)) == (steps, outputs, rows)
    if work.kind != "pp":
        mean = sum(sum(b.positions) for b in batches) / rows
        assert mean == pytest.approx(positions, abs=2)


def test_bytes_and_operations_by_hand(subject: Subject) -> None:
    least = traffic.of(subject.model, Work("tg", 5), "bytes")
    dim, ffn, kv, layers, vocab = SHAPE["dim"], SHAPE["ffn_dim"], 2 * 64, SHAPE["n_layers"], SHAPE["vocab_size"]
    weights = layers * (2 * dim * dim + 2 * dim * kv + 3 * dim * ffn)
    assert least.operations == {"bytes": 2.0 * weights, "floats": 2.0 * vocab * dim}
    codes_and_scales = least.bytes - 2 * vocab * dim - 2.5 * 2 * 2 * layers * kv
    assert weights * 1.7 / 8 < codes_and_scales < weights * 3.2 / 8  # 2.25 bits and padding; 1.78 on AVX-512
    prompt = traffic.of(subject.model, Work("pp", 128), "bytes")
    kv_position = 2 * 2 * layers * kv
    assert traffic.kv_bytes(subject.model) == kv_position
    assert prompt.bytes == pytest.approx(
        (least.bytes - 2.5 * kv_position) / 128 + kv_position
    )  # one chunk: all read once
    assert least.share_of_compute(10, {"bytes": 20.0 * weights, "floats": 1e30}) == pytest.approx(1)


def test_depth_is_reached_by_the_last_run(subject: Subject) -> None:
    assert len(subject.seconds(Work("ctx", 128))) == 1
    assert len(subject.seconds(Work("tg", 2))) == 1
    assert tokens(Work("batch", 3)) == 3 * DECODED


def test_phases_add_up_to_a_step(subject: Subject) -> None:
    phases = profile(subject, Work("tg", 5), 1e9)
    assert set(phases.kernels) <= set(subject.model.programs["largest"].names)
    assert any(name.startswith("ternary") for name in phases.kernels)
    assert list(phases.kernels.values()) == sorted(phases.kernels.values(), reverse=True)
    assert phases.step == pytest.approx(sum(phases.kernels.values()) + phases.python)
    assert not subject.model.cycles


def test_products_on_their_own() -> None:
    chosen = isa.select_isa()
    ceilings = Ceilings({}, {"bytes": {1: 1e12, 2: 2e12}})
    found = list(products.measure(chosen, 2, ceilings, 1, shapes=((256, 384),)))
    assert [(p.tokens, p.threads) for p in found] == [(1, 1), (1, 2), (products.GEMM, 1), (products.GEMM, 2)]
    assert all(p.kernel.startswith("ternary") and p.operations.n == 1 for p in found)
    assert all(p.share == pytest.approx(p.operations.median / (1e12 * p.threads)) for p in found)


def test_paths_of_files_are_kept(tmp_path: Path) -> None:
    from ternrun.bench.files import Wanted, provided

    file = tmp_path / "nano-125m-i2_s-f16.gguf"
    file.write_bytes(b"kept")
    with provided(Wanted("nano-125m", folder=str(tmp_path))) as path:
        assert path == file
    assert [p.name for p in tmp_path.iterdir()] == [file.name]
