"""`t_from_log_snr` at its ends, the other way round, and on times of any form."""

import pytest
import torch
from strategies import EVERY, WarpedVP, every_sde, smooth_times
from support import assert_close

from sdekit.errors import DtypeError, TimeError
from sdekit.sde import VPSDE


@every_sde
def test_other_way_round(sde):
    """log_snr(t_from_log_snr(y)) = y."""
    low, high = float(sde.log_snr(sde.t_max)), float(sde.log_snr(1e-6 * sde.t_max))
    y = torch.linspace(low, high, 9, dtype=torch.float64)
    assert_close(sde.log_snr(sde.t_from_log_snr(y)), y, tol=1e-10)


@every_sde
def test_ends(sde):
    high = float(sde.log_snr(0.0))
    assert float(sde.t_from_log_snr(high)) == pytest.approx(
        0.0, abs=1e-300 if high > 1e300 else 1e-13
    )
    assert float(sde.t_from_log_snr(sde.log_snr(sde.t_max))) == pytest.approx(sde.t_max, rel=1e-9)
    if high > 1e300:
        assert float(sde.t_from_log_snr(float("inf"))) == 0.0
    for beyond in (float(sde.log_snr(sde.t_max)) - 1.0, float("nan"), -float("inf")):
        with pytest.raises(TimeError, match="log_snr"):
            sde.t_from_log_snr(beyond)
    if high < 1e300:
        with pytest.raises(TimeError, match="log_snr"):
            sde.t_from_log_snr(high + 1.0)


@pytest.mark.parametrize("t_max", [0.3, 0.8, 1.0, 2.95, 5.0, 10.2])
def test_the_last_time_without_a_closed_form(t_max):
    """The search is in log t, and exp(log(t_max)) may fall short of t_max."""
    sde = WarpedVP(beta_max=0.5, t_max=t_max)
    assert float(sde.t_from_log_snr(sde.log_snr(t_max))) == t_max
    narrow = sde.log_snr(torch.tensor([t_max], dtype=torch.float32))
    assert float(sde.t_from_log_snr(narrow)) == pytest.approx(t_max, rel=1e-6)


@every_sde
def test_shape_and_dtype(sde):
    t = smooth_times(sde)[:6]
    y = sde.log_snr(t)
    flat = sde.t_from_log_snr(y)
    assert torch.equal(sde.t_from_log_snr(y.reshape(2, 3)), flat.reshape(2, 3))
    assert sde.t_from_log_snr(y[2]).shape == ()
    assert_close(sde.t_from_log_snr(y[2]), flat[2], tol=1e-14)
    alone = sde.t_from_log_snr(float(y[2]))  # a float keeps its 53 bits
    assert alone.dtype == torch.float64
    assert float(alone) == float(sde.t_from_log_snr(y[2]))
    assert sde.t_from_log_snr(y[:0]).shape == (0,)
    narrow = sde.t_from_log_snr(y.float())
    assert narrow.dtype == torch.float32
    ends = sde.log_snr(torch.tensor([sde.t_max], dtype=torch.float32))
    assert float(sde.t_from_log_snr(ends)) == pytest.approx(sde.t_max, rel=1e-4)


@pytest.mark.parametrize("bad", ["1", None, True, 1j, torch.tensor(3), [0.5]])
def test_wrong_types(bad):
    with pytest.raises(DtypeError, match="log_snr"):
        EVERY["vp-0"].t_from_log_snr(bad)


@pytest.mark.parametrize(
    "key",
    ["vp-0", "vp-1", "sub_vp-0", "ve-0", "edm-0", "flow-0", "cosine-0", "cosine-1", "ddpm-1"],
)
def test_closed_forms_are_differentiable(key):
    """dt/d log_snr = -var/g^2, by autograd through the inverse; and vmap."""
    sde = EVERY[key]
    t = smooth_times(sde, 8, low=1e-3)
    y = sde.log_snr(t).requires_grad_()
    (slope,) = torch.autograd.grad(sde.t_from_log_snr(y).sum(), y)
    assert_close(slope / (-sde.var(t) / sde.g2(t)), torch.ones_like(t), tol=1e-8)
    assert_close(torch.vmap(sde.t_from_log_snr)(y.detach()), t, tol=1e-10)


def test_vp_where_the_snr_underflows():
    """exp(709) is the largest there is: the softplus of the inverse must not form exp(750)."""
    sde = VPSDE(beta_max=5000.0)
    log_snr = torch.linspace(-2400.0, 0.0, 481, dtype=torch.float64)
    t = sde.t_from_log_snr(log_snr)
    assert bool((t.diff() < 0).all())
    torch.testing.assert_close(sde.log_snr(t), log_snr, rtol=1e-9, atol=1e-9)
