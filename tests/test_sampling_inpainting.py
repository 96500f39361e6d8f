"""Claim: inpainting samples the closed-form conditional law of the unknown entries.

Bug 14. For jointly Gaussian data "projected" has the conditional law's score at every t, hence the
sampler's own law on it; "replace" comes closer to it with every round, and each of the peers'
slips (known entries at the old level, an un-noised start, a lost denoising) is seen. The
known entries of the result are those given, bit by bit, whatever batch or chunk.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch
from sampling_support import Given, Wrapped, adaptive, defaults, draws, two_modes
from strategies import every_sde, f64

from sdekit import inpaint
from sdekit.errors import (
    ConfigError,
    DtypeError,
    ModelError,
    NonFiniteError,
    SdekitError,
    ShapeError,
)
from sdekit.exact import output_law, probe_callable
from sdekit.model import MLP, ExactScore, ScoreModel
from sdekit.sampling import DDIM, Projected, inpainting, sample
from sdekit.sde import DDPM, VESDE, VPSDE, FlowSDE, SubVPSDE
from sdekit.targets import Gaussian

MEAN = f64([0.5, -1.0, 0.3])
COV = f64([[1.0, 0.6, 0.3], [0.6, 0.8, 0.1], [0.3, 0.1, 0.5]])
MASK, KNOWN = torch.tensor([True, False, False]), f64([1.7, 9.0, float("nan")])
DATA = Gaussian(MEAN, COV)
PROCESSES = [VPSDE(), SubVPSDE(), VESDE(), FlowSDE(), DDPM.linear(100)]
METHODS = [{"method": "projected"}, {"method": "replace", "resample": 2}]
both = pytest.mark.parametrize("how", METHODS, ids=lambda how: how["method"])


def conditional(known, mask, mean=MEAN, cov=COV) -> Gaussian:
    """p(x | x_k = known), by the textbook: a point in the known entries."""
    k, u = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
    gain = cov[u][:, k] @ torch.linalg.inv(cov[k][:, k])
    centre = torch.where(mask, known, 0.0)
    centre[u] = mean[u] + gain @ (known[k] - mean[k])
    spread = torch.zeros_like(cov)
    spread[u[:, None], u] = cov[u][:, u] - gain @ cov[k][:, u]
    return Gaussian(centre, spread)


TRUE = conditional(KNOWN, MASK)


# the conditional score --------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [(0,), (1, 2)])
@every_sde
def test_the_projected_score_is_that_of_the_conditional_law(sde, entries):
    mask = torch.zeros(3, dtype=torch.bool)
    mask[list(entries)] = True
    known = f64([1.7, -2.0, 0.9])
    true = ExactScore(conditional(known, mask), sde)
    given = Projected(ExactScore(DATA, sde), known, mask)
    shares = (0.01, 0.05, 0.2, 0.5, 0.8, 1.0)
    times = [sde.time(max(1, round(s * sde.n))) for s in shares] if "ddpm" in sde.kinds else [
        s * sde.t_max for s in shares
    ]  # fmt: skip
    for t in times:
        x = true.at(t).sample(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        seen, expected = given(x, t).score, true(x, t).score
        # x itself is rounded, which counts where the noise is as small
        tol = 1e-9 + 2**-50 * float(expected.abs().max())
        assert float((seen - expected).abs().max() / expected.abs().max()) < tol, t


def test_one_time_a_sample():
    model = ExactScore(DATA, VPSDE())
    given, x, t = Projected(model, KNOWN, MASK), draws(1, (3, 3))[0], f64([0.1, 0.5, 0.9])
    whole = given(x, t).score
    for i in range(3):
        torch.testing.assert_close(whole[i : i + 1], given(x[i : i + 1], float(t[i])).score)


@pytest.mark.parametrize("sampler", ["ancestral", "heun", "predictor_corrector"])
@pytest.mark.parametrize("sde", PROCESSES, ids=repr)
def test_the_law_of_a_projected_run_is_the_samplers_own_on_the_conditional(sde, sampler):
    given = Projected(ExactScore(DATA, sde), KNOWN, MASK)
    seen = output_law(sampler, given, steps=8, dim=3)
    true = output_law(sampler, ExactScore(TRUE, sde), steps=8)
    torch.testing.assert_close(seen.mean, true.mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(seen.cov, true.cov, rtol=1e-8, atol=1e-8)


def test_an_adaptive_solver_runs_projected():
    law = {"sampler": "probability_flow(rtol=1e-7, atol=1e-7)", "seed": 0, "dtype": torch.float64}
    run = inpaint(ExactScore(DATA, VPSDE()), KNOWN, MASK, n=4000, **law)
    assert run.nfe % 2 == 0  # one known entry: a call and a backward pass
    u = run.x[:, 1:]
    assert float((u.mean(0) - TRUE.mean[1:]).abs().max()) < 0.05
    assert float((u.T.cov() - TRUE.cov[1:, 1:]).abs().max()) < 0.05


def test_entries_without_a_variance_say_nothing():
    """A known entry that never varies, and two that are one."""
    cov = f64([[1.0, 1.0, 0.5, 0.0], [1.0, 1.0, 0.5, 0.0], [0.5, 0.5, 1.0, 0.0], [0.0] * 4])
    model = ExactScore(Gaussian(torch.zeros(4, dtype=torch.float64), cov), VPSDE())
    known, mask = f64([2.0, 2.0, 0.0, 0.0]), torch.tensor([True, True, False, True])
    one = Projected(model, known, torch.tensor([True, False, False, False]))
    seen = Projected(model, known, mask)(torch.ones(1, 4, dtype=torch.float64), 0.5)
    expected = one(torch.ones(1, 4, dtype=torch.float64), 0.5)
    assert bool(torch.isfinite(seen.score).all())
    # the twin's own x_t tells of no more than the known value does
    torch.testing.assert_close(seen.x0[0, :2], f64([2.0, 2.0]), rtol=1e-6, atol=0)
    torch.testing.assert_close(seen.x0, expected.x0, rtol=1e-6, atol=1e-9)


# replacement ------------------------------------------------------------------------------------


def law_of(sde=None, sampler="heun", steps=20, **how) -> Gaussian:
    """The exact law of a run of inpaint from the prior."""
    model = ExactScore(DATA, sde or VPSDE())

    def run(x):
        return inpaint(
            model, KNOWN, MASK, n=len(x), sampler=sampler, steps=steps, grid="log_snr", x_init=x,
            noise=torch.randn_like, **how,
        ).x  # fmt: skip

    return probe_callable(run, Gaussian(torch.zeros(3, dtype=torch.float64), 1.0))


def off(law: Gaussian) -> tuple[float, float]:
    """The error of the unknown entries: of means in standard deviations, and of variances."""
    var = TRUE.cov.diagonal()[1:]
    mean = ((law.mean - TRUE.mean)[1:].abs() / var.sqrt()).max()
    return float(mean), float((law.cov.diagonal()[1:] / var - 1).abs().max())


@pytest.mark.slow
def test_replacement_comes_closer_with_every_round():
    """Means off by 0.70, 0.43, 0.19 and 0.08 standard deviations: ten steps and few rounds."""
    found = [off(law_of(method="replace", resample=r, steps=10)) for r in (1, 3, 10, 30)]
    means, variances = zip(*found, strict=True)
    assert all(b < 0.65 * a for a, b in pairwise(means)), found
    assert all(b < 0.65 * a for a, b in pairwise(variances)), found
    assert means[-1] < 0.1
    assert variances[-1] < 0.06


@pytest.mark.slow
def test_projection_has_the_samplers_error_only():
    mean, var = off(law_of(method="projected", steps=30))
    assert mean < 0.01
    assert var < 0.04


class WrongLevel(inpainting._Replace):
    """Bug 14: after a row to s the known entries are put at its beginning, t."""

    def coefficients(self, sde, grid):
        found = super().coefficients(sde, grid)
        t, _ = self.times(sde, grid)
        return {**found, "level": torch.stack([sde.alpha(t), sde.sigma(t)], dim=1)}


class QuietStart(inpainting._Replace):
    """Bug 14: the known entries of the start have no noise."""

    def _started(self, model, x, grid, noise):
        return self._with_known(x, [float(model.sde.alpha(grid[0])), 0.0], model, noise)


class Unreplaced(inpainting._Replace):
    """The known entries are set in the start and in the result only."""

    def step(self, x, c, model, state, noise):
        return self.sampler.step(x, c.row, model, state, noise)


def traced(monkeypatch, cls, sde, sampler="ddim", **how):
    """The states of a run of three rows, with a class of the test's own in place of ours."""
    monkeypatch.setattr(inpainting, "_Replace", cls)
    model = ExactScore(DATA, sde)
    run = inpaint(
        model, KNOWN, MASK, n=2000, method="replace", resample=1, sampler=sampler, steps=3,
        seed=0, keep="all", dtype=torch.float64, **how,
    )  # fmt: skip
    return run


def level_p_value(run, sde) -> float:
    """The worst |z| of the known entries' mean and variance at their own levels."""
    worst = 0.0
    for state, t in zip(run.trajectory, run.trajectory_t.tolist(), strict=True):
        alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
        z = (state[:, 0] - alpha * 1.7) / sigma
        n = len(z)
        worst = max(worst, float(z.mean()) * n**0.5, abs(float(z.var()) - 1) * (n / 2) ** 0.5)
    return worst


RIGHT = inpainting._Replace
WRONG = [WrongLevel, QuietStart, Unreplaced]


@pytest.mark.parametrize("cls", [RIGHT, *WRONG], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), SubVPSDE()], ids=repr)
def test_the_known_entries_are_at_the_level_of_the_others(monkeypatch, cls, sde):
    """The start included; every planted fault is seen."""
    right = level_p_value(traced(monkeypatch, cls, sde), sde) < 5
    assert right == (cls is RIGHT)


def test_a_last_denoising_reaches_the_unknown_entries():
    """Bug 14: it is the model's x_0 at the last state, whose known entries have its level."""
    model, how = ExactScore(DATA, VPSDE()), dict(method="replace", n=5, steps=4, seed=1)
    grid = torch.linspace(0.9, 0.2, 5, dtype=torch.float64)
    how = {**how, "grid": grid, "dtype": torch.float64}
    run = inpaint(model, KNOWN, MASK, denoise=True, keep="all", **how)
    expected = model(run.trajectory[-1], 0.2).x0
    torch.testing.assert_close(run.x[:, 1:], expected[:, 1:], rtol=1e-12, atol=1e-12)
    plain = inpaint(model, KNOWN, MASK, **how)
    assert float((run.x - plain.x)[:, 1:].abs().max()) > 0.01
    assert run.nfe == plain.nfe + 1


def test_rows_rounds_and_jumps():
    """Passes of `jump` rows: their times, their calls, and the way back."""
    model = Wrapped(ExactScore(DATA, VPSDE()))
    grid = f64([0.9, 0.6, 0.4, 0.1])
    how = dict(method="replace", grid=grid, seed=0, dtype=torch.float64, keep="all")
    run = inpaint(model, KNOWN, MASK, resample=2, jump=2, **how)
    assert model.times == pytest.approx([0.9, 0.6, 0.9, 0.6, 0.4, 0.4])
    assert run.grid.tolist() == pytest.approx([0.9, 0.6, 0.4, 0.6, 0.4, 0.1, 0.1])
    assert run.nfe == 6
    model.times.clear()
    inpaint(model, KNOWN, MASK, resample=1, jump=2, **how)
    assert model.times == pytest.approx([0.9, 0.6, 0.4])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remembering(DDIM):
    """DDIM that notes what it remembers: the times of its rows since its memory was empty."""

    log: list = dataclasses.field(default_factory=list, compare=False)

    def step(self, x, c, model, state, noise):
        state = [*(state or []), round(c.t, 3)]
        self.log.append(state)
        return super().step(x, c, model, None, noise)[0], state


def test_memory_starts_anew_with_every_pass():
    sampler, grid = Remembering(), f64([0.9, 0.6, 0.4, 0.1])
    model = ExactScore(DATA, VPSDE())
    inpaint(model, KNOWN, MASK, method="replace", resample=2, jump=2, grid=grid, sampler=sampler)
    assert sampler.log == [[0.9], [0.9, 0.6], [0.9], [0.9, 0.6], [0.4], [0.4]]
    sampler.log.clear()
    inpaint(model, KNOWN, MASK, method="replace", resample=1, grid=grid, sampler=sampler)
    assert sampler.log[-1] == [0.9, 0.6, 0.4]


# what both keep ---------------------------------------------------------------------------------


@both
@every_sde
def test_known_entries_come_back_bit_by_bit(sde, how):
    model = ExactScore(two_modes(), sde)
    known = torch.tensor([[0.3, 7.0], [0.1, 8.0]], dtype=torch.float64)
    mask = torch.tensor([True, False])
    run = inpaint(model, known, mask, steps=min(4, getattr(sde, "n", 4)), seed=0, **how)
    assert torch.equal(run.x[:, 0], known[:, 0])
    assert bool(torch.isfinite(run.x).all())


@both
def test_batch_and_chunk_do_not_matter(how):
    model, known = ExactScore(two_modes(), VPSDE()), draws(1, (7, 2))[0]
    mask = torch.tensor([True, False])
    how = {**how, "sampler": "ancestral", "steps": 5, "seed": 3}
    whole = inpaint(model, known, mask, **how).x
    assert torch.equal(whole, inpaint(model, known, mask, chunk=3, **how).x)
    assert torch.equal(whole[:2], inpaint(model, known[:2], mask, **how).x)


@both
def test_a_network_runs_in_evaluation_mode_and_inference_mode(how):
    net = ScoreModel(MLP(3, seed=0), VPSDE()).train()
    with torch.inference_mode():
        run = inpaint(net, KNOWN.float(), MASK, n=3, steps=3, seed=0, **how)
    again = inpaint(net, KNOWN.float(), MASK, n=3, steps=3, seed=0, **how)
    torch.testing.assert_close(run.x, again.x)
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    assert not again.x.requires_grad


@both
def test_images_and_a_mask_as_long_as_the_batch(how):
    model = Given(lambda x, t: -x, VPSDE())
    mask = torch.tensor([[[True, False], [False, True]]])
    known = draws(1, (1, 2, 2))[0]
    run = inpaint(model, known, mask, n=1, steps=3, seed=0, **how)
    assert run.x.shape == (1, 1, 2, 2)
    assert torch.equal(run.x[:, mask], known.to(run.x)[mask][None])


def test_nothing_known_is_plain_sampling():
    model, mask = ExactScore(DATA, VPSDE()), torch.zeros(3, dtype=torch.bool)
    run = inpaint(model, KNOWN, mask, n=4, steps=3, seed=0)
    assert torch.equal(run.x, sample(model, (4, 3), steps=3, seed=0).x)
    assert run.nfe == 3


@both
def test_everything_known_and_no_samples(how):
    model, mask = ExactScore(DATA, VPSDE()), torch.ones(3, dtype=torch.bool)
    known = f64([1.0, 2.0, 3.0])
    assert torch.equal(inpaint(model, known, mask, n=2, steps=2, **how).x, known.expand(2, 3))
    assert inpaint(model, known, mask, n=0, steps=2, **how).x.shape == (0, 3)


def test_calls_count_backward_passes():
    model, mask = Wrapped(ExactScore(DATA, VPSDE())), torch.tensor([True, True, False])
    run = inpaint(model, f64([0.0, 0.0, 0.0]), mask, steps=4, seed=0)
    assert (model.calls, run.nfe) == (4, 12)


# refusals ---------------------------------------------------------------------------------------

MODEL = ExactScore(DATA, VPSDE())


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"mask": MASK.float()}, DtypeError, "mask"),
        ({"mask": [True, False, False]}, DtypeError, "mask"),
        ({"mask": MASK[:2]}, ShapeError, r"\(2,\)"),
        ({"known": torch.tensor([1, 2, 3])}, DtypeError, "known"),
        ({"known": f64([float("nan"), 0.0, 0.0])}, NonFiniteError, "known"),
        ({"known": draws(1, (4, 3))[0], "n": 3}, ShapeError, "n=3"),
        ({"method": "repaint"}, ConfigError, "projected"),
        ({"resample": 3}, ConfigError, "replace"),
        ({"method": "replace", "resample": 0}, ConfigError, "resample"),
        ({"method": "replace", "jump": 1.5}, DtypeError, "jump"),
        ({"method": "replace", "sampler": "probability_flow"}, ConfigError, "projected"),
        ({"mask": ~MASK, "known": f64([0.0] * 3), "limit": 1}, ConfigError, "5 times.*limit=1"),
        ({"max_nfe": 1}, ConfigError, "counts as 2"),
        ({"steps": 10, "max_nfe": 6}, ConfigError, "max_nfe"),
    ],
)
def test_wrong_arguments(change, error, says):
    arguments = {"known": KNOWN, "mask": MASK, "steps": 2, **change}
    with pytest.raises(error, match=says):
        inpaint(MODEL, **arguments)
    assert issubclass(error, SdekitError)


def test_a_model_without_a_derivative():
    model = Given(lambda x, t: -x.detach(), VPSDE())
    with pytest.raises(ModelError, match="replace"):
        inpaint(model, KNOWN, MASK, steps=2)
    assert inpaint(model, KNOWN, MASK, steps=2, method="replace").x.shape == (1, 3)


@pytest.mark.parametrize("name", sorted(defaults("sampler")))
@pytest.mark.parametrize("jump", [1, 3])
def test_replacement_with_every_sampler(name, jump):
    """Pieces of any length join, whatever a sampler's columns are."""
    sampler = defaults("sampler")[name]
    model = ExactScore(Gaussian(f64([0.0, 0.0]), f64([[1.0, 0.8], [0.8, 1.0]])), VPSDE())
    known, mask = f64([2.0, 0.0]), torch.tensor([True, False])
    how = dict(n=400, method="replace", sampler=sampler, steps=14, seed=0, resample=6, jump=jump)
    if adaptive(sampler):
        with pytest.raises(ConfigError):
            inpaint(model, known, mask, **how)
        return
    x = inpaint(model, known, mask, **how).x
    assert torch.equal(x[:, 0], torch.full((400,), 2.0, dtype=x.dtype))
    if sampler.order is not None:  # the mean goes from 0 to 1.6 as rounds are added
        assert 0.7 < float(x[:, 1].mean()) < 1.9
