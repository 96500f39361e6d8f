"""Claim: each law of the time is the one it names, and importance sampling is unbiased.

Property 42 by quadrature over the uniform draws, cell by cell, never by sampling; on a chain the
expectation over its nodes, exactly. Stratified draws are one a stratum, in a batch and in each
batch of a prepared block, and each sample's time stays uniform.
"""

import math

import numpy as np
import pytest
import torch
from support import assert_close

from sdekit import DDPM, DSM, VPSDE, CosineSDE, ScoreModel, Trainer, catalogue
from sdekit.errors import ConfigError, DtypeError
from sdekit.model import MLP
from sdekit.objectives import (
    Importance,
    Likelihood,
    LogitNormal,
    LogNormal,
    LogSNR,
    MinSNR,
    Objective,
    Simple,
    Stratified,
    Uniform,
    Weighting,
)
from sdekit.objectives.times import _table, draw_times

SDES = [sde for entry in catalogue("sde").values() for sde in entry.examples()]
CONTINUOUS = [sde for sde in SDES if "ddpm" not in sde.kinds]
CHAINS = [DDPM.linear(20, beta_start=0.005, beta_end=0.4), DDPM([0.1] * 10, t_min=0.2)]
WEIGHTINGS = [entry.make() for entry in catalogue("weighting").values()]
LAWS = [law for entry in catalogue("time").values() for law in entry.examples()]


def gauss(low, high, n=20):
    """Nodes and weights of Gauss-Legendre on each interval, flattened."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(n))
    half = 0.5 * (high - low)[:, None]
    return (low[:, None] + half * (1 + nodes)).flatten(), (half * weights).flatten()


def shape(t):
    return 2 + torch.sin(5 * t)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=repr)
@pytest.mark.parametrize("sde", CONTINUOUS, ids=repr)
def test_importance_is_unbiased(sde, weighting):
    """Both integrals by Gauss-Legendre on cells: over u with the correction, and over t."""
    law = Importance()
    span, one = sde.t_max - sde.t_min, torch.zeros(1, dtype=torch.float64)
    edges, mass = _table(sde, Simple())  # cells that are fine near t_min
    if "log_snr" in weighting.kinds:  # equal parts of u
        heights = torch.linspace(0, 1, 2049, dtype=torch.float64)
    else:
        own, mass = _table(sde, weighting)
        assert torch.equal(own, edges)
        heights = torch.cat([one, mass.cumsum(0) / mass.sum()])
    u, p = gauss(heights[:-1], heights[1:], 8)
    t = law.times(sde, u, weighting)
    weighted = weighting.weight(sde, t) * law.ratio(sde, t, weighting)
    t_flat, q = gauss(edges[:-1], edges[1:], 8)
    expected = (q * weighting.weight(sde, t_flat) * shape(t_flat)).sum() / span
    assert_close((p * weighted * shape(t)).sum(), expected, tol=1e-8)
    if "log_snr" in weighting.kinds:  # one weight for all
        assert_close(weighted, weighted[:1].expand(len(u)), tol=1e-9)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=repr)
@pytest.mark.parametrize("chain", CHAINS, ids=repr)
def test_importance_is_unbiased_on_a_chain(chain, weighting):
    """Each node's share of u, found by bisection of the map, times its correction."""
    first = round(chain.t_min * chain.n) + 1
    nodes = chain.time(torch.arange(first, chain.n + 1))
    law, w = Importance(), weighting.weight(chain, nodes)
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    seen = chain.index(chain.to_model_time(law.times(chain, u, weighting)))
    share = torch.bincount(seen, minlength=chain.n + 1)[first:] / len(u)
    assert_close(share.double(), w / w.sum(), tol=1e-5, scale=1.0)
    ratio = law.ratio(chain, nodes, weighting)
    assert_close(ratio * w / w.sum(), torch.full_like(w, 1 / len(nodes)), tol=1e-12)


@pytest.mark.parametrize("sde", [VPSDE(), CHAINS[0]], ids=repr)
def test_the_loss_carries_the_correction(sde):
    """DSM(time="importance") at its times is the plain loss there over the density."""
    x0 = torch.randn(64, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = ScoreModel(lambda x, time: torch.tanh(x), sde, uncertainty=True)
    for name in ("likelihood", "min_snr", "uncertainty"):
        drawn, plain = (DSM(weighting=name, time=t) for t in ("importance", "uniform"))
        terms = drawn.prepare(model, x0, torch.Generator().manual_seed(4))
        t = terms[1]
        noise = (terms[0] - sde.alpha(t)[:, None] * x0) / sde.sigma(t)[:, None]
        expected = plain.loss_at(model, x0, t, noise) * Importance().ratio(sde, t, plain.weighting)
        assert_close(drawn.losses(model, *terms).detach(), expected.detach(), tol=1e-9)


def test_a_weighting_that_vanishes_is_refused_or_avoided():
    class Late(Weighting):
        def weight(self, sde, t):
            return (t > 0.5).to(t)

    class Never(Weighting):
        def weight(self, sde, t):
            return 0 * t

    u = torch.linspace(1e-9, 1, 1000, dtype=torch.float64)
    assert float(Importance().times(VPSDE(), u, Late()).min()) > 0.49
    with pytest.raises(ConfigError, match="Never"):
        Importance().times(VPSDE(), u, Never())


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("sde", [*SDES, *CHAINS], ids=repr)
def test_the_ends(sde, law):
    """The smallest and the largest u give times where the model is defined."""
    u = torch.tensor([2.0**-53, 1.0], dtype=torch.float64)
    for weighting in (Likelihood(), MinSNR()):
        t = sde.to_model_time(law.times(sde, u, weighting))
        assert bool(((t >= sde.t_min) & (t <= sde.t_max)).all()), t
        assert bool(torch.isfinite(sde.log_snr(t)).all())
        assert bool((t > 0).all()) or float(sde.var(0.0)) > 0


@pytest.mark.parametrize("sde", CONTINUOUS, ids=repr)
def test_log_normal_is_the_truncated_law(sde):
    """Each u is its own probability, by the other tail's formula, in both tails."""
    u = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    levels = [-0.5 * float(sde.log_snr(end)) for end in (sde.t_min, sde.t_max)]
    for mean in (-1.2, 0.0, levels[0] - 9.0, levels[1] + 9.0):  # the last two: far tails
        t = LogNormal(mean=mean, std=1.0).times(sde, u, Simple())
        z = (-0.5 * sde.log_snr(t) - mean).tolist()
        low, high = (level - mean for level in levels)
        sign = -1 if low + high > 0 else 1  # erfc of a negative number has no small digits

        def phi(v, sign=sign):
            return 0.5 * math.erfc(-sign * v / math.sqrt(2))

        part = torch.tensor([(phi(v) - phi(low)) / (phi(high) - phi(low)) for v in z])
        assert_close(part.double(), u, tol=1e-6)


def test_log_snr_on_a_chain_goes_to_the_nearest_node():
    chain = CHAINS[0]
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    nodes = chain.index(LogSNR().times(chain, u, Simple()))
    share = torch.bincount(nodes, minlength=21)[1:].double() / len(u)
    known = chain.log_snr(chain.time(torch.arange(1, 21)))
    middle = torch.cat([known[:1], 0.5 * (known[1:] + known[:-1]), known[-1:]])
    assert_close(share, -middle.diff() / (known[0] - known[-1]), tol=2e-5, scale=1.0)


def test_logit_normal_has_its_median_at_the_mean():
    u = torch.tensor([0.5], dtype=torch.float64)
    for mean in (-1.0, 0.0, 2.0):
        t = LogitNormal(mean=mean).times(VPSDE(t_min=0.2), u, Simple())
        expected = 0.2 + 0.8 / (1 + math.exp(-mean))
        assert_close(t, torch.tensor([expected], dtype=torch.float64), tol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_stratified_is_one_a_stratum(n, generator):
    u = Stratified().uniforms(n, generator)
    assert (n * u).ceil().sort().values.tolist() == list(range(1, n + 1))
    chain = DDPM([0.01] * n)  # n draws on n nodes: each once
    t = draw_times(Stratified(), chain, n, generator, Simple())
    assert sorted(chain.index(t).tolist()) == list(range(1, n + 1))


def test_each_batch_of_a_block_has_its_strata(generator):
    """What the trainer asks for; the last batch may be smaller."""
    objective, sde = DSM(time="stratified"), VPSDE()
    model = ScoreModel(lambda x, time: x, sde)
    x0 = torch.zeros(100, 1)
    t = objective.prepare_batches(model, x0, generator, 32)[1]
    u = (t - sde.t_min) / (sde.t_max - sde.t_min)
    for part in u.split(32):
        assert (len(part) * part).ceil().unique().numel() == len(part)
    whole = objective.prepare(model, x0, generator)[1]
    assert (100 * (whole - sde.t_min) / (1 - sde.t_min)).ceil().unique().numel() == 100
    # the rows of other laws come as they came before: one draw for all
    seeds = [torch.Generator().manual_seed(5) for _ in range(2)]
    one = DSM().prepare_batches(model, x0, seeds[0], 32)
    assert torch.equal(one[1], DSM().prepare(model, x0, seeds[1])[1])


def test_the_trainer_prepares_by_its_batches():
    sizes = []

    class Noted(DSM):
        def prepare_batches(self, model, x0, generator, batch_size):
            sizes.append(batch_size)
            return super().prepare_batches(model, x0, generator, batch_size)

    model = ScoreModel(MLP(1, width=4, depth=1), VPSDE())
    data = torch.arange(40.0)[:, None]
    Trainer(model, Noted(time="stratified"), batch_size=8).fit(data, steps=3)
    assert set(sizes) == {8}


def test_the_default_prepares_all_rows_at_once(generator):
    class Plain(Objective):
        def prepare(self, model, x0, generator):
            return (x0,)

        def losses(self, model, *terms, **cond):
            return terms[0].sum(1)

    assert len(Plain().prepare_batches(None, torch.zeros(6, 2), generator, 2)[0]) == 6


def test_strata_take_variance_from_the_mean_of_a_batch():
    """Exactly: of f(t) = t the mean of n strata has variance 1/(12 n^3), not 1/(12 n)."""
    generator, n = torch.Generator().manual_seed(0), 32
    means = torch.stack([Stratified().uniforms(n, generator).mean() for _ in range(2000)])
    assert 0.8 < float(means.var()) * 12 * n**3 < 1.2  # 6 standard errors


@pytest.mark.parametrize("spelling", ["log_normal(mean=-1.2, std=1.2)", "uniform", LogNormal()])
def test_spellings(spelling):
    made = DSM(time=spelling)
    assert DSM(time=repr(made.time)) == made
    assert DSM(time="log_normal(std=2.0)").time == LogNormal(std=2.0)
    assert isinstance(DSM().time, Uniform)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: LogNormal(std=0), ConfigError, ["std", "0"]),
        (lambda: LogitNormal(std=-1), ConfigError, ["std", "-1"]),
        (lambda: DSM(time="log_normal(men=1)"), ConfigError, ["men", "mean"]),
        (lambda: DSM(time=3), DtypeError, ["time", "3"]),
        (lambda: DSM(time="importence"), ConfigError, ["importance"]),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_process_without_closed_inverse():
    """The laws of the log-SNR solve for the time."""
    u = torch.tensor([0.2, 0.8], dtype=torch.float64)
    t = LogSNR().times(CosineSDE(), u, Simple())
    level = CosineSDE().log_snr(t)
    ends = CosineSDE().log_snr(torch.tensor([1e-3, 0.999], dtype=torch.float64))
    assert_close(level, ends[0] + u * (ends[1] - ends[0]), tol=1e-9)
