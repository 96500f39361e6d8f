"""Claim: times are uniform on (t_min, t_max], and on a chain each node 1 .. N has weight 1/N.

The law is a map of uniform draws, so it is checked as a function: the draws that give node i are
an interval of length 1/N, whatever the generator.
"""

import pytest
import torch
from support import assert_close, proportion_test

from sdekit import DSM, ScoreModel, catalogue
from sdekit.objectives import Simple, Uniform
from sdekit.objectives.times import draw_times
from sdekit.sde import DDPM, VPSDE

SDES = [sde for entry in catalogue("sde").values() for sde in entry.examples()]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100, 1000, 9973])
def test_each_node_is_one_nth_of_the_draws(n):
    chain = DDPM([0.01] * n)
    i = torch.arange(1, n + 1, dtype=torch.float64)
    for inside in (1e-6, 0.5, 1 - 1e-6):  # of the interval ((i - 1)/n, i/n]
        t = chain.to_model_time(Uniform().times(chain, (i - 1 + inside) / n, Simple()))
        assert torch.equal(chain.index(t), i.to(torch.int64))


def test_a_chain_that_ends_above_its_first_node():
    """Nodes 3 .. 10 of a chain sampled down to node 2: a model is called at those."""
    chain = DDPM([0.01] * 10, t_min=0.2)
    u = (torch.arange(80, dtype=torch.float64) + 0.5) / 80
    nodes = chain.index(chain.to_model_time(Uniform().times(chain, u, Simple())))
    assert torch.bincount(nodes, minlength=11).tolist() == [0, 0, 0] + [10] * 8


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_the_ends(sde):
    """u -> 0 is t_min (or the first node above it) and u = 1 is t_max, never beyond."""
    u = torch.tensor([2.0**-53, 1.0], dtype=torch.float64)
    t = sde.to_model_time(Uniform().times(sde, u, Simple()))
    assert sde.t_min <= t[0] < sde.t_min + 1.001 / getattr(sde, "n", 1e9)
    assert t[1] == sde.t_max
    assert bool(torch.isfinite(sde.log_snr(t)).all())


def test_the_nodes_are_uniform(generator, alpha_budget):
    chain, n = DDPM.linear(4), 100_000
    nodes = chain.index(draw_times(Uniform(), chain, n, generator, Simple()))
    level = alpha_budget.spend("nodes of a chain", parts=4) / 4
    for node in (1, 2, 3, 4):
        hits = proportion_test(int((nodes == node).sum()), n, p=0.25, alpha=level)
        assert hits, (node, hits)


def test_the_model_is_told_these_times(generator):
    """The network of a chain sees indices 0 .. N - 1 and nothing between."""
    seen = []

    def network(x, time):
        seen.append(time)
        return x

    model = ScoreModel(network, DDPM.linear(5), time_input="index")
    DSM()(model, torch.zeros(2000, 1), generator=generator)
    assert seen[0].unique().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_time_and_noise_do_not_depend_on_the_dtype():
    def loss(dtype):
        model = ScoreModel(lambda x, time: x, VPSDE())
        generator = torch.Generator().manual_seed(3)
        return DSM()(model, torch.zeros(100, 2, dtype=dtype), generator=generator)

    assert_close(loss(torch.float32).double(), loss(torch.float64), tol=1e-5)


def test_a_call_is_the_loss_at_its_draws():
    """The generator gives the times, one float64 a sample, then the noise in float64."""
    sde, x0 = VPSDE(), torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(6, 2)
    model = ScoreModel(lambda x, time: torch.tanh(x), sde)
    called = DSM()(model, x0, generator=torch.Generator().manual_seed(8))
    generator = torch.Generator().manual_seed(8)
    u = 1 - torch.rand(6, generator=generator, dtype=torch.float64)
    noise = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    t = sde.t_min + u * (sde.t_max - sde.t_min)
    assert_close(called, DSM().loss_at(model, x0, t, noise), tol=1e-14)
