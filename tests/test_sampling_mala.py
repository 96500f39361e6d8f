"""Claim: MALA leaves p_t itself at rest, whatever its step.

Properties 62 and 63: detailed balance of the acceptance to 1e-12, and uniform ranks of a start
among the states of the reversible chain through it (Gandy and Scott, arXiv:2001.06465, algorithm
2), which plain Langevin fails. Rejected samples stay; calls are as declared; exact laws refuse it.
"""

from __future__ import annotations

import math

import pytest
import torch
from sampling_support import Given, draws, two_modes
from strategies import every_sde, f64

from sdekit.errors import ConfigError, DtypeError, NonFiniteError, NotAffine
from sdekit.exact import output_law, output_law_1d
from sdekit.model import MLP, ExactScore, ScoreModel
from sdekit.sampling import MALA, Langevin, PredictorCorrector, sample
from sdekit.sampling.mala import _LOBATTO, log_acceptance
from sdekit.sampling.noise import KeyedNoise, Replay, Zero
from sdekit.sde import VESDE, VPSDE, SubVPSDE
from sdekit.targets import Gaussian, GaussianMixture
from sdekit.verify import check_sampler
from sdekit.verify.statistics import LEVEL, retested, uniform

T = 0.5


def at_level(model, sampler, x, noise, t=T):
    """One row of a corrector at the time t."""
    grid = f64([model.sde.t_max, t])
    return sample(model, tuple(x.shape), sampler=sampler, grid=grid, x_init=x, noise=noise)


# property 62 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1e-3, 0.1, 2.0])
def test_detailed_balance(step):
    """p(x) q(y | x) A(x, y) = p(y) q(x | y) A(y, x), with q written as a density."""
    law = two_modes()
    x, y = draws(2, (50, 2), seed=1)

    def log_q(b, a):
        away = b - a - step * law.score(a)
        return -away.square().sum(1) / (4 * step) - math.log(4 * math.pi * step)

    def one_way(a, b):
        ratio = law.log_prob(b) - law.log_prob(a)
        accepted = log_acceptance(a, b, law.score(a), law.score(b), ratio, step)
        assert bool((accepted <= 0).all())
        return law.log_prob(a) + log_q(b, a) + accepted

    there, back = one_way(x, y), one_way(y, x)
    torch.testing.assert_close(there, back, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("nodes", sorted(_LOBATTO))
def test_the_quadrature_is_exact_for_its_degree(nodes):
    inner, weights, end = _LOBATTO[nodes]
    u, w = f64([0.0, *inner, 1.0]), f64([end, *weights, end])
    for degree in range(2 * nodes - 2):
        assert float((w * u**degree).sum()) == pytest.approx(1 / (degree + 1), abs=1e-15)
    assert float((w * u ** (2 * nodes - 2)).sum()) != pytest.approx(1 / (2 * nodes - 1), abs=1e-9)


@pytest.mark.parametrize(("nodes", "most"), [(2, 0.4), (3, 0.02), (4, 3e-3), (5, 5e-4)])
def test_the_path_gives_the_densities_ratio(nodes, most):
    """On a mixture; on Gaussian data two nodes are exact."""
    sampler = MALA(nodes=nodes)
    for law, allowed in ((two_modes(), most), (Gaussian(f64([1.0, 0.0]), 0.3), 1e-13)):
        x = law.sample(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        y = x + 0.3 * draws(1, (200, 2), seed=2)[0]

        class At:
            c = type("Row", (), {"t": 0.0, "score": (0.0, 1.0)})

            def __call__(self, x, t, law=law):
                return type("Seen", (), {"mix": lambda self, w: law.score(x)})()

        seen = sampler._log_ratio(x, y, law.score(x), law.score(y), At.c, At())
        expected = law.log_prob(y) - law.log_prob(x)
        assert float((seen - expected).abs().max()) < allowed


# property 63 ------------------------------------------------------------------------------------

LINE = GaussianMixture(f64([0.3, 0.7]), f64([[-1.0], [0.8]]), f64([0.2, 0.1]))
LENGTH = 8


def rank_p_value(sampler, n: int, seed: int) -> float:
    """The start, at a random place of a chain of LENGTH states, has a uniform rank among them."""
    model, stream = ExactScore(LINE, VPSDE()), torch.Generator().manual_seed(seed)
    x = model.at(T).sample(n, generator=stream, dtype=torch.float64)
    place = torch.randint(LENGTH, (n,), generator=stream)  # states before the start
    grid = f64([0.55, *[T] * 1])
    chains = []
    for k in range(2):  # reversible: the past is made by the same steps as the future
        states, y = [], x
        for _ in range(LENGTH - 1):

            def noise(like):
                return torch.randn(like.shape, generator=stream, dtype=like.dtype)

            y = sample(model, (n, 1), sampler=sampler, grid=grid, x_init=y, noise=noise).x
            states.append(y)
        index = torch.arange(LENGTH - 1)[:, None]
        used = index < place if k else index < LENGTH - 1 - place
        chains.append(torch.where(used, torch.cat(states, dim=1).T, math.nan))
    others = torch.cat(chains).abs()
    start = x[:, 0].abs()
    less, same = (others < start).sum(0), (others == start).sum(0)  # a rejection makes a tie
    u = torch.rand(n, 2, generator=stream, dtype=torch.float64)
    rank = less + (u[:, 0] * (same + 1)).floor()
    return uniform((rank + u[:, 1]) / LENGTH)


@pytest.mark.parametrize("ratio", ["path", "density"])
def test_ranks_are_uniform(ratio):
    sampler = MALA(snr=0.5, ratio=ratio, nodes=5)
    found = retested(lambda n, seed: rank_p_value(sampler, n, seed), seed=7, first=20_000)
    assert found.ok, found


@pytest.mark.parametrize("sampler", [Langevin(snr=0.5), Langevin(snr=0.3)], ids=repr)
def test_plain_langevin_has_other_ranks(sampler):
    found = retested(lambda n, seed: rank_p_value(sampler, n, seed), seed=7, first=20_000)
    assert not found.ok, found
    assert found.measured < LEVEL


@pytest.mark.slow
def test_the_rank_test_has_its_level():
    """Replayed 2000 times at 1e-2: at most 1e-2 of false alarms, up to 5 standard deviations."""
    sampler = MALA(snr=0.5, ratio="density")
    alarms = sum(rank_p_value(sampler, 200, 10_000 + k) < 1e-2 for k in range(2000))
    assert alarms <= 20 + 5 * math.sqrt(20)


# a step -----------------------------------------------------------------------------------------


@every_sde
def test_a_step_by_hand(sde):
    model, x = ExactScore(two_modes(), sde), draws(1, (64, 2))[0]
    t = sde.time(max(1, sde.n // 2)) if "ddpm" in sde.kinds else T * sde.t_max
    if t == sde.t_max:
        return  # a chain of one step has no level below
    z = draws(2, (64, 2), seed=9)
    sampler = MALA(snr=0.8, ratio="density")
    h = 2 * (0.8 * float(sde.sigma(t))) ** 2
    law = model.at(t)
    y = x + h * law.score(x) + math.sqrt(2 * h) * z[0]

    def log_q(b, a):
        return -(b - a - h * law.score(a)).square().sum(1) / (4 * h)

    log_a = law.log_prob(y) + log_q(x, y) - law.log_prob(x) - log_q(y, x)
    takes = torch.special.ndtr(z[1][:, 0]) < log_a.exp()
    kept = x.clone()
    run = at_level(model, sampler, x, Replay(z), t)
    torch.testing.assert_close(run.x[takes], y[takes], rtol=1e-12, atol=1e-12)
    assert torch.equal(run.x[~takes], x[~takes])
    assert torch.equal(x, kept)
    if sde == VPSDE():
        assert 5 < int(takes.sum()) < 60


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [
        (MALA(), 3),
        (MALA(nodes=2), 2),
        (MALA(repeats=3, nodes=4), 10),
        (MALA(repeats=3, ratio="density"), 4),
    ],
    ids=repr,
)
def test_calls_are_declared(sampler, calls):
    run = at_level(ExactScore(two_modes(), VPSDE()), sampler, draws(1, (3, 2))[0], Zero())
    assert run.nfe == sampler.nfe_per_step == calls


def test_repeats_are_single_steps():
    model, x, z = ExactScore(two_modes(), VPSDE()), draws(1, (30, 2))[0], draws(6, (30, 2), seed=4)
    whole = at_level(model, MALA(snr=0.7, repeats=3), x, Replay(z)).x
    for k in range(3):
        x = at_level(model, MALA(snr=0.7), x, Replay(z[2 * k : 2 * k + 2])).x
    torch.testing.assert_close(whole, x, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("predictor", ["reverse_diffusion", "ddim", "heun"])
@every_sde
def test_it_corrects_any_predictor(sde, predictor):
    model = ExactScore(two_modes(), sde)
    pair = PredictorCorrector(predictor=predictor, corrector="mala", first="predictor")
    run = sample(model, (5, 2), sampler=pair, steps=min(5, getattr(sde, "n", 5)), seed=0)
    assert bool(torch.isfinite(run.x).all())


def test_from_a_wrong_start_it_reaches_the_law_without_bias():
    """Plain Langevin stops at the variance v / (1 - h / (2 v)), which is 1.9 v here."""
    model = ExactScore(Gaussian(f64([0.4]), 0.1), VPSDE())
    law = model.at(T)
    x = 3 * draws(1, (20_000, 1))[0]
    v = float(law.cov)
    for sampler, ratio in ((MALA, 1.0), (Langevin, 1 / (1 - 0.7**2 * model.sde.var(T) / v))):
        how = sampler(snr=0.7, repeats=30)
        out = at_level(model, how, x, KeyedNoise(1)).x
        assert abs(float(out.mean() - law.mean)) < 5 * (float(ratio) * v / 20_000) ** 0.5
        assert abs(float(out.var()) / (float(ratio) * v) - 1) < 0.05


def test_images_networks_and_chunks():
    net = ScoreModel(MLP(4, seed=0), VPSDE())
    how = dict(sampler="predictor_corrector(corrector='mala')", steps=4, seed=0)
    whole = sample(net, (9, 4), **how).x
    torch.testing.assert_close(whole, sample(net, (9, 4), chunk=4, **how).x)
    model = ExactScore(two_modes(), VPSDE())
    whole = sample(model, (40, 2), **how).x
    assert torch.equal(whole, sample(model, (40, 2), chunk=7, **how).x)
    image = Given(lambda x, t: -x, VPSDE())
    assert sample(image, (3, 1, 4, 4), **how).x.shape == (3, 1, 4, 4)


# refusals ---------------------------------------------------------------------------------------


def test_what_is_not_a_number_is_seen():
    """It must not be kept out by rejection: the run would stand still and look healthy."""
    model = Given(lambda x, t: torch.where(x > 0.5, math.nan, -x), VPSDE())
    x = draws(1, (200, 2))[0].clamp_max(0.4)
    with pytest.raises(NonFiniteError):
        sample(model, (200, 2), sampler=MALA(snr=0.7), steps=5, seed=0, x_init=x)


@pytest.mark.parametrize("sampler", ["mala", "predictor_corrector(corrector='mala')"])
def test_it_has_no_exact_law(sampler):
    model = ExactScore(Gaussian(f64([0.3]), 0.5), VPSDE())
    for law in (output_law, output_law_1d):
        with pytest.raises(NotAffine, match="mala"):
            law(sampler, model, steps=4)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"snr": 0.0}, ConfigError),
        ({"repeats": 0}, ConfigError),
        ({"ratio": "exact"}, ConfigError),
        ({"nodes": 1}, ConfigError),
        ({"nodes": 6}, ConfigError),
        ({"nodes": 2.5}, DtypeError),
    ],
)
def test_wrong_fields(change, error):
    with pytest.raises(error, match=next(iter(change))):
        MALA(**change)


def test_a_density_is_needed_for_its_ratio():
    model = Given(lambda x, t: -x, VPSDE())
    with pytest.raises(ConfigError, match="ratio='path'"):
        sample(model, (2, 2), sampler=MALA(ratio="density"), steps=2, seed=0)


@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE(), VESDE()], ids=repr)
def test_a_network_in_single_precision_stays_there(sde):
    run = sample(ScoreModel(MLP(2, seed=0), sde), (4, 2), sampler="mala", steps=3, seed=0)
    assert run.x.dtype is torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("sampler", MALA.examples(), ids=repr)
def test_the_kit_agrees(sampler):
    report = check_sampler(sampler)
    assert report.ok, str(report)
