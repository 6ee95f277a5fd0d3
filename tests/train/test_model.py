from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ternrun.train.config import DecoderConfig, OptimizerConfig
from ternrun.train.loop.sample import generate
from ternrun.train.model.decoder import Decoder
from ternrun.train.model.loss import cross_entropy
from ternrun.train.model.mhc import StreamMixing
from ternrun.train.optim import build

Make = Callable[..., DecoderConfig]


def test_initial_loss_is_that_of_guessing(shape: Make) -> None:
    model = Decoder(shape())
    ids = torch.randint(320, (2, 65))
    _, loss = model(ids[:, :-1], ids[:, 1:], torch.float32)
    assert loss.item() == pytest.approx(torch.tensor(320.0).log().item(), rel=0.05)


def test_later_tokens_do_not_reach_back(shape: Make) -> None:
    model = Decoder(shape())
    ids = torch.randint(320, (1, 64))
    changed = ids.clone()
    changed[0, 40:] = (changed[0, 40:] + 1) % 320
    with torch.no_grad():
        assert torch.equal(model.logits(ids)[:, :40], model.logits(changed)[:, :40])


@pytest.mark.parametrize("entropy", [0.0, 0.3])
@pytest.mark.parametrize("ignored", [[], [0, 20, 21, 49]], ids=["all", "some"])
def test_chunked_loss_is_torchs(ignored: list[int], entropy: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ternrun.train.model.loss.CHUNK", 16)
    hidden, head = torch.randn(50, 12, requires_grad=True), torch.randn(33, 12, requires_grad=True)
    targets = torch.randint(33, (50,))
    targets[ignored] = -1
    objective, loss = cross_entropy(hidden, head, targets, 0.01, entropy)
    objective.backward()
    grads = hidden.grad, head.grad
    hidden.grad = head.grad = None
    logits, targets = (hidden @ head.t())[targets >= 0], targets[targets >= 0]
    wanted = torch.nn.functional.cross_entropy(logits, targets)
    uncertainty = torch.distributions.Categorical(logits=logits).entropy().mean()
    whole = wanted + 0.01 * torch.logsumexp(logits, -1).square().mean() - entropy * uncertainty
    whole.backward()
    assert objective.item() == pytest.approx(whole.item(), rel=1e-5)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    for ours, theirs in zip(grads, (hidden.grad, head.grad), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("streams", [2, 4])
def test_mixing_is_doubly_stochastic(streams: int) -> None:
    mixing = StreamMixing(streams, 1)
    torch.nn.init.normal_(mixing.mix)
    mix, read, write = mixing.matrices()
    assert torch.allclose(mix.sum(0), torch.ones(streams))
    assert torch.allclose(mix.sum(1), torch.ones(streams))
    assert ((mix >= 0).all(), (read > 0).all(), (write > 0).all()) == (True, True, True)


@pytest.mark.parametrize("streams", [2, 4])
def test_streams_diverge_and_mixing_learns(streams: int, shape: Make) -> None:
    """In the project this one succeeds the streams stayed equal copies, and the mixing had no gradient at all."""
    model = Decoder(shape(mhc_streams=streams, n_layers=3, dim=64, ffn_dim=64))
    optimizers = build(model, OptimizerConfig())
    ids = torch.randint(320, (2, 33))
    for _ in range(3):
        objective, _ = model(ids[:, :-1], ids[:, 1:], torch.float32)
        objective.backward()
        gradients = {n: p.grad.abs().max().item() for n, p in model.named_parameters() if "mhc" in n}
        assert len(gradients) == 18
        # the first mix sees equal copies, and what the last one does the final mean undoes: all others learn
        idle = ("blk.0.mhc_attn.mix", "blk.2.mhc_ffn.mix")
        assert all(g > 1e-6 for n, g in gradients.items() if n not in idle), gradients
        for optimizer in optimizers.values():
            optimizer.step()
        model.zero_grad()
    states: list[torch.Tensor] = []
    model.blk[-1].register_forward_hook(lambda _m, _i, output: states.append(output))
    with torch.no_grad():
        model.hidden(ids, torch.float32)
    spread = (states[0] - states[0].mean(0)).norm() / states[0].norm()
    assert spread > 0.05


def test_generation_is_greedy_and_slides(shape: Make) -> None:
    model = Decoder(shape(context=16))
    made = generate(model, list(range(10)), 12, torch.float32)
    assert len(made) == 12
    with torch.no_grad():
        assert made[0] == model.logits(torch.arange(10)[None])[0, -1].argmax().item()
    assert generate(model, [1], 4, torch.float32, temperature=1.0, seed=3) == generate(
        model, [1], 4, torch.float32, temperature=1.0, seed=3
    )
