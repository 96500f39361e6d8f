"""Claim: `output_law` is the law of what the real sampler returns, to rounding.

Against an impulse probe of its own kind (one forward batch, no autograd), against the closed form
where one step is exact, in any basis, whatever the segments of the backward pass. What is not
affine is refused with the measured defect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from sampling_support import Given, adaptive, each, entries, exact_law, probe, spectrum
from strategies import f64
from support import assert_close
from torch import nn

from sdekit import DDPM, EDM, VESDE, VPSDE, ExactScore, FlowSDE, Gaussian, ScoreModel, SubVPSDE
from sdekit.errors import ConfigError, NonFiniteError, NotAffine, ShapeError, TimeError
from sdekit.exact import affine_map, output_law, passes
from sdekit.model import Moments
from sdekit.sampling import DDIM, Ancestral, Mix, OneKick, Sampler
from sdekit.sampling.grid import resolve_grid
from sdekit.targets import GaussianMixture
from sdekit.verify.claims import Skip

SDES = {"vp": VPSDE(), "sub_vp": SubVPSDE(), "ve": VESDE(), "flow": FlowSDE()}
NORMS = {"langevin-1"}  # its step depends on norms
FIXED = {
    key: s
    for key, s in entries("sampler").items()
    if not adaptive(s) and "rejects" not in s.needs and key not in NORMS
}
ROTATION = torch.linalg.qr(
    torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
)[0]


@dataclass(frozen=True, kw_only=True)
class AdamsBashforth(Sampler):
    """A sampler with a memory: second-order Adams-Bashforth in sigma / alpha."""

    order = 2

    def coefficients(self, sde, grid) -> dict[str, Any]:
        t, s = self.times(sde, grid)
        level = (sde.sigma(grid) / sde.alpha(grid)).diff()
        ratio = torch.cat([torch.zeros(1, dtype=torch.float64), level[1:] / level[:-1]])
        new, old = sde.alpha(s) * level * (1 + 0.5 * ratio), -0.5 * sde.alpha(s) * level * ratio
        return {
            "mean": Mix(t, x=sde.alpha(s) / sde.alpha(t), eps=new),
            "eps": Mix(t, eps=1.0),
            "old": old,
        }

    def step(self, x, c, model, state, noise):
        out = model(x, c.t)
        y = out.mix(c.mean)
        return (y if state is None else y.add_(state[0], alpha=c.old)), [out.mix(c.eps)]


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("sampler", each(FIXED))
def test_the_map_is_that_of_an_impulse_probe(sampler, sde):
    model = ExactScore(spectrum(), sde)
    grid = resolve_grid("uniform", sde, 12)
    expected, found = probe(sampler, model, grid), affine_map(sampler, model, grid=grid)
    assert_close(found.offset, expected.offset, tol=1e-12)
    # a difference of runs from large starts: the probe's own rounding, as a share of those starts
    assert_close(
        found.start, expected.start, tol=1e-12, scale=1 + float(expected.start.abs().max())
    )
    assert_close(found.noise, expected.kicks.square().sum(0), tol=1e-12)
    assert found.draws == len(expected.kicks)
    mean, var = exact_law(model, float(grid[0]))
    law = found.law(Gaussian.from_spectrum(mean, var))
    assert_close(law.cov.diagonal(), found.start**2 * var + found.noise, tol=1e-14)


def test_a_sampler_with_a_memory():
    """Its state crosses the segments of the backward pass, whatever their length."""
    model = ExactScore(spectrum(), VPSDE())
    grid = resolve_grid("log_snr", model.sde, 30)
    expected = probe(AdamsBashforth(), model, grid)
    found = affine_map(AdamsBashforth(), model, grid=grid)
    assert_close(found.start, expected.start, tol=1e-13)
    assert_close(found.offset, expected.offset, tol=1e-13)


@pytest.mark.parametrize("memory", [1, 10_000, 30_000])
def test_the_segments_of_the_backward_pass_do_not_matter(memory, monkeypatch):
    model = ExactScore(spectrum(), VPSDE())
    for sampler in (AdamsBashforth(), "predictor_corrector", "heun(churn=5)"):
        whole = affine_map(sampler, model, steps=40, denoise=True)
        monkeypatch.setattr(passes, "_MEMORY", memory)
        cut = affine_map(sampler, model, steps=40, denoise=True)
        monkeypatch.undo()
        for name in ("offset", "start", "noise"):
            assert_close(getattr(cut, name), getattr(whole, name), tol=1e-14)


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), DDPM.linear(30)], ids=["vp", "ve", "ddpm"])
def test_a_full_covariance_is_that_of_its_eigenbasis(sde):
    """Q diag Q^T in, Q (law of the diagonal one) Q^T out; dense derivatives say the same."""
    values, mean = f64([0.01, 0.2, 1.0, 6.0]), f64([0.7, -1.0, 0.2, 2.0])
    turned = Gaussian(ROTATION @ mean, ROTATION @ values.diag() @ ROTATION.T)
    straight = output_law("ancestral", ExactScore(Gaussian.from_spectrum(mean, values), sde))
    law = output_law("ancestral", ExactScore(turned, sde))
    assert_close(law.cov, ROTATION @ straight.cov @ ROTATION.T, tol=1e-12)
    assert_close(law.mean, ROTATION @ straight.mean, tol=1e-12)
    # a predictor whose structure nobody knows takes a row for each coordinate
    exact = ExactScore(turned, sde)
    unknown = Given(lambda x, t: exact.at(t).score(x), sde)
    dense = affine_map("ancestral", unknown, dim=4)
    assert dense.start.ndim == 2
    start = Gaussian(torch.zeros(4, dtype=torch.float64), sde.prior_std() ** 2)
    assert_close(dense.law(start).cov, law.cov, tol=1e-10)


def test_a_start_that_does_not_commute():
    """x_T with a covariance of its own: A S A^T + noise, computed in full."""
    start = Gaussian(f64([1.0, -1.0]), f64([[2.0, 0.9], [0.9, 1.0]]))
    model = ExactScore(Gaussian(f64([0.5, 0.0]), f64([[1.0, 0.0], [0.0, 0.01]])), VPSDE())
    found = affine_map("ddim(eta=0.5)", model, steps=10)
    law = output_law("ddim(eta=0.5)", model, steps=10, prior=start)
    assert_close(
        law.cov,
        found.start.diag() @ start.cov @ found.start.diag() + found.noise.diag(),
        tol=1e-13,
    )
    assert_close(law.mean, found.offset + found.start * start.mean, tol=1e-13)


def test_a_start_that_does_not_commute_with_correlated_data():
    """The same in a turned basis: Q diag(a) Q^T S Q diag(a) Q^T + Q diag Q^T."""
    basis = ROTATION[:2, :2] / torch.linalg.det(ROTATION[:2, :2]).abs().sqrt()
    basis = torch.linalg.qr(basis)[0]
    data = Gaussian.from_spectrum(f64([0.5, 0.0]), f64([1.0, 0.01]), basis)
    start = Gaussian(f64([1.0, -1.0]), f64([[2.0, 0.9], [0.9, 1.0]]))
    model = ExactScore(data, VPSDE())
    found = affine_map("ddim(eta=0.5)", model, steps=10)
    whole = basis @ found.start.diag() @ basis.T
    noise = basis @ found.noise.diag() @ basis.T
    law = output_law("ddim(eta=0.5)", model, steps=10, prior=start)
    assert float((basis - torch.eye(2)).abs().max()) > 0.1
    assert_close(law.cov, whole @ start.cov @ whole.T + noise, tol=1e-13)
    assert_close(law.mean, basis @ found.offset + whole @ start.mean, tol=1e-13)


def test_the_prior_and_the_last_denoising():
    model = ExactScore(spectrum(), VPSDE())
    matched = output_law("ddim", model, steps=400, prior="matched")
    true = output_law("ddim", model, steps=400, prior=model.at(1.0))
    assert_close(matched.cov, true.cov, tol=1e-12)
    sigma = float(model.sde.sigma(1e-3))
    plain, clean = (output_law("ddim", model, steps=400, denoise=d) for d in (False, True))
    # the x_0 of a Gaussian is a shrunk x_t
    alpha = float(model.sde.alpha(1e-3))
    shrink = (
        alpha * f64([0.01, 0.2, 1.0, 6.0]) / (alpha**2 * f64([0.01, 0.2, 1.0, 6.0]) + sigma**2)
    )
    assert_close(clean.cov.diagonal(), shrink**2 * plain.cov.diagonal(), tol=1e-12)


def test_one_exact_step_gives_the_law_itself():
    """Property 50: on point-mass data ancestral sampling in one step is exact."""
    point = Gaussian(f64([2.0, -3.0]), 0.0)
    for sde in (VPSDE(), VESDE(), EDM(t_min=0.1)):
        model = ExactScore(point, sde)
        law = output_law("ddim(eta=1.0)", model, steps=1, prior=model.at(sde.t_max))
        assert_close(law.mean, float(sde.alpha(sde.t_min)) * point.mean, tol=1e-10)
        var = f64([float(sde.var(sde.t_min))]).expand(2)
        # what is left of the start's variance is rounding of its size
        assert_close(law.cov.diagonal(), var, tol=1e-14, scale=max(1.0, sde.prior_std() ** 2))


def test_an_affine_network():
    """A linear network is no ExactScore, and its law is exact all the same."""

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[0.8, 0.3], [-0.2, 0.5]]))
            self.bias = nn.Parameter(torch.tensor([0.1, -0.2]))

        def forward(self, x, t):
            return (x @ self.weight.T + self.bias) * t[:, None]

    model = ScoreModel(Linear(), VPSDE())
    law = output_law("ancestral", model, steps=20, dim=2)
    grid = resolve_grid("uniform", model.sde, 20)
    # brute force in float64: all moments by unit vectors and impulses, coordinates mixed
    double = ScoreModel(Linear(), VPSDE()).double()
    plain = affine_map("ancestral", double, grid=grid, dim=2)
    assert plain.start.ndim == 2
    assert float(plain.start[0, 1].abs()) > 1e-3  # the coordinates do meet
    assert_close(law.cov, plain.start @ plain.start.T + plain.noise, tol=1e-12)
    assert model.network.weight.dtype == torch.float32  # the user's own stays as it was
    assert law == output_law("ancestral", model, steps=20, prior="standard", dim=2)


# what is not affine -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampler",
    ["langevin(rule='batch_norm')", "langevin(rule='sample_norm')", "probability_flow",
     "probability_flow(solver='scipy:RK45')"],
)  # fmt: skip
def test_steps_that_depend_on_the_sample_are_refused(sampler):
    with pytest.raises(NotAffine, match=r"superposition fails by [0-9.e-]+ of the output"):
        output_law(sampler, ExactScore(spectrum(), VPSDE()), steps=5)


def test_a_mixture_is_refused():
    law = GaussianMixture(f64([0.5, 0.5]), f64([[-1.0], [1.0]]), 0.1)
    with pytest.raises(NotAffine, match="superposition") as failed:
        output_law("ddim", ExactScore(law, VPSDE()), steps=10)
    assert "output_law_1d" in str(failed.value)
    gauss = ExactScore(Gaussian(f64([0.0]), 1.0), VPSDE())
    with pytest.raises(NotAffine, match="prior must be Gaussian"):
        output_law("ddim", gauss, steps=10, prior=law)


def test_a_slight_bend_is_noticed():
    """A score with a quadratic part of one part in a million."""
    exact = ExactScore(Gaussian(f64([0.0, 0.0]), 1.0), VPSDE())
    bent = Given(lambda x, t: exact.at(t).score(x) + 1e-6 * x.square(), VPSDE())
    with pytest.raises(NotAffine):
        output_law("ddim", bent, steps=10, dim=2)


def test_values_taken_out_of_the_graph_are_noticed():
    exact = ExactScore(Gaussian(f64([0.0, 0.0]), 1.0), VPSDE())
    numpy = Given(lambda x, t: exact.at(t).score(x.detach()), VPSDE())
    with pytest.raises(NotAffine, match="autograd"):
        output_law("ddim", numpy, steps=10, dim=2)


def test_a_run_that_overflows_has_no_law():
    steep = Given(lambda x, t: -1e200 * x, VPSDE())
    with pytest.raises(NonFiniteError, match="no law"):
        output_law("euler_maruyama", steep, steps=5, dim=1)


def test_bad_arguments():
    model = ExactScore(spectrum(), VPSDE())
    with pytest.raises(ConfigError, match="dimm"):
        output_law("dimm", model)
    with pytest.raises(ConfigError, match="steps"):
        output_law("ddim", model, steps=0)
    with pytest.raises(TimeError, match="grid"):
        output_law("ddim", model, grid=f64([0.1, 0.5]))
    with pytest.raises(ShapeError, match="dim"):
        output_law("ddim", Given(lambda x, t: -x, VPSDE()), steps=3)
    with pytest.raises(ShapeError, match="prior"):
        output_law("ddim", model, steps=3, prior=Gaussian(f64([0.0]), 1.0))
    with pytest.raises(ConfigError, match="matched"):
        output_law("ddim", Given(lambda x, t: -x, VPSDE()), steps=3, dim=2, prior="matched")


def test_nothing_of_the_users_is_changed():
    """Grad mode, the model's mode, its parameters' gradients."""

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.5))

        def forward(self, x, t):
            return self.scale * x

    model = ScoreModel(Scale(), VPSDE(), moments=Moments.isotropic((2,), 1.0)).train()
    with torch.no_grad():
        output_law("heun", model, steps=5)
    assert model.training
    assert model.network.scale.grad is None


def test_the_diagonal_case_makes_no_matrix():
    """3072 variances, and a sampler that draws: kilobytes a step, not d^2."""
    lam = torch.logspace(-4, 1, 3072, dtype=torch.float64)
    model = ExactScore(Gaussian.from_spectrum(torch.zeros(3072), lam), VPSDE())
    law = output_law(Ancestral(), model, steps=10)
    assert law.spectrum[1] is None
    small = ExactScore(Gaussian.from_spectrum(torch.zeros(2), lam[[5, 3000]]), VPSDE())
    assert_close(law.spectrum[0][[5, 3000]], output_law(Ancestral(), small, steps=10).spectrum[0])


class _Detuned(DDIM):
    """DDIM with a tenth more x_0 than it should take."""

    def coefficients(self, sde, grid):
        mean = super().coefficients(sde, grid)["mean"]
        return {
            "mean": Mix(mean.at, x0=1.1 * mean.x0, eps=mean.eps),
            "std": torch.zeros(len(grid) - 1),
        }


def test_the_law_would_catch_a_wrong_step():
    model = ExactScore(spectrum(), VPSDE())
    right, wrong = (output_law(s, model, steps=50) for s in (DDIM(), _Detuned()))
    assert float((wrong.mean / right.mean - 1).abs().min()) > 0.05
    assert issubclass(_Detuned, OneKick)


def test_the_probe_refuses_what_is_not_affine():
    """A bend of 1e-4 in a single row shows in the superposition of its responses."""

    class Bent(DDIM):
        def step(self, x, c, model, state, noise):
            y, state = super().step(x, c, model, state, noise)
            return y + 1e-4 * y.square(), state

    for sampler in (Bent(), Bent(eta=1.0)):
        with pytest.raises(Skip, match="superposition fails"):
            probe(sampler, ExactScore(spectrum(), VPSDE()), resolve_grid("uniform", VPSDE(), 6))
