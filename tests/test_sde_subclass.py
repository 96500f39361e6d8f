"""A user's SDE of two methods gets float64 times, everything derived, errors that name a slip."""

from dataclasses import FrozenInstanceError, dataclass

import pytest
import torch
from strategies import EVERY, PlainOU, every_sde, own_examples

from sdekit.errors import ConfigError, DtypeError, ShapeError, TimeError
from sdekit.sde import DDPM, SDE, VESDE, VPSDE, LinearSDE

OWN = own_examples()
seen = []


@dataclass(frozen=True, kw_only=True)
class Spy(LinearSDE):
    """Records the times that its methods are given."""

    def log_alpha(self, t):
        seen.append(t)
        return -t

    def var(self, t):
        seen.append(t)
        return -torch.expm1(-2 * t)

    def alpha(self, t):
        seen.append(t)
        return torch.exp(-t)

    def f(self, t):
        seen.append(t)
        return torch.full_like(t, -1.0)

    def transition(self, s, t):
        seen.extend([s, t])
        return (s - t).exp(), (-torch.expm1(2 * (s - t))).sqrt()


@pytest.mark.parametrize(
    "t",
    [
        0.5,
        1,
        torch.tensor(0.5),
        torch.tensor([1]),
        torch.tensor([0.1, 0.5, 0.9]).half(),
        torch.full((2, 2), 0.3).double(),
    ],
)
def test_methods_see_float64_tensors(t):
    seen.clear()
    sde = Spy()
    for name in ("log_alpha", "var", "alpha", "f", "log_snr", "g2", "sigma", "diffusion"):
        getattr(sde, name)(t)
    sde.transition(0.1, t.clamp_min(0.1) if isinstance(t, torch.Tensor) else t)
    sde.posterior(s=0, t=t)
    assert len(seen) > 8
    assert all(isinstance(each, torch.Tensor) and each.dtype == torch.float64 for each in seen)


def test_overridden_methods_check_their_times():
    """What a subclass overrides is validated and cast like what it inherits."""
    sde = Spy()
    for method in (sde.log_alpha, sde.alpha, sde.f, sde.var, sde.log_snr):
        with pytest.raises(TimeError, match=r"t must lie in \[0, 1\].*got 1\.5"):
            method(1.5)
        assert method(torch.tensor([0.25])).dtype == torch.float32
    with pytest.raises(TimeError, match="s must lie"):
        sde.transition(-0.1, 0.5)
    with pytest.raises(TypeError, match="transition"):
        sde.transition(0.1)
    with pytest.raises(TypeError, match="log_alpha"):
        sde.log_alpha(0.1, 0.2)
    with pytest.raises(TypeError, match="var"):
        sde.var(time=0.1)


def subclass(**methods):
    body = {
        "log_alpha": lambda self, t: -t,
        "var": lambda self, t: t,
        "__annotations__": {},
        **methods,
    }
    for name, method in methods.items():
        method.__name__ = name  # as `def` would
    return dataclass(frozen=True, kw_only=True)(type("Mine", (LinearSDE,), body))


@pytest.mark.parametrize(
    ("method", "returned", "error", "words"),
    [
        ("log_alpha", lambda self, t: t.sum(), ShapeError, ["Mine.log_alpha", "(3,)", "()"]),
        ("var", lambda self, t: t[:, None], ShapeError, ["Mine.var", "(3,)", "(3, 1)"]),
        ("var", lambda self, t: 0.5, DtypeError, ["Mine.var", "float"]),
        ("log_alpha", lambda self, t: None, DtypeError, ["Mine.log_alpha", "NoneType"]),
        ("g2", lambda self, t: t.mean(), ShapeError, ["Mine.g2", "(3,)"]),
        ("f", lambda self, t: t[:2], ShapeError, ["Mine.f", "(2,)"]),
    ],
)
def test_a14_wrong_returns_are_named(method, returned, error, words):
    sde = subclass(**{method: returned})()
    with pytest.raises(error) as caught:
        getattr(sde, method)(torch.full((3,), 0.5))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a14_shapes_of_two_times():
    """A transition must have the broadcast shape, not that of s."""
    sde = subclass(transition=lambda self, s, t: (torch.ones_like(s), torch.ones_like(s)))()
    with pytest.raises(ShapeError, match=r"transition.*\(3,\).*\(\)"):
        sde.transition(0.1, torch.full((3,), 0.5))
    assert sde.transition(torch.full((3,), 0.1), 0.5)[0].shape == (3,)


@pytest.mark.parametrize("missing", ["log_alpha", "var"])
def test_a14_missing_methods_are_named(missing):
    body = {"log_alpha": lambda self, t: -t, "var": lambda self, t: t, "__annotations__": {}}
    del body[missing]
    cls = dataclass(frozen=True, kw_only=True)(type("Mine", (LinearSDE,), body))
    with pytest.raises(TypeError, match=rf"Mine.*{missing}"):
        cls()


def test_a14_missing_methods_of_a_nonlinear_sde():
    class Mine(SDE):
        def drift(self, x, t):
            return -(x**3)

    with pytest.raises(TypeError, match=r"Mine.*diffusion"):
        Mine()


@pytest.mark.parametrize("sde", OWN.values(), ids=OWN)
def test_a15_frozen(sde):
    """Assigning any field raises AttributeError; hash and equality stay what they were."""
    before = hash(sde)
    for name in ("t_min", "t_max", "beta_min", "betas", "sigma_max", "anything"):
        with pytest.raises(AttributeError):
            setattr(sde, name, 3.0)
    with pytest.raises(FrozenInstanceError):
        del sde.t_max
    assert hash(sde) == before
    assert sde == sde


def test_a15_equality_and_hash():
    """Equal fields are equal objects; another value, class or interval is not."""
    assert VPSDE() == VPSDE(beta_max=20)
    assert hash(VPSDE()) == hash(VPSDE(beta_max=20))
    assert VPSDE() != VPSDE(beta_max=19)
    assert VPSDE() != VPSDE(t_max=0.9)
    assert VESDE() != VPSDE()
    assert DDPM.linear(10) == DDPM(torch.linspace(1e-4, 0.02, 10, dtype=torch.float64))
    assert hash(DDPM.linear(10)) == hash(DDPM.linear(10))
    assert DDPM.linear(10) != DDPM.linear(11)
    assert DDPM([0.1, 0.2]) != DDPM([0.2, 0.1])
    assert DDPM([0.1, 0.2]) != DDPM([0.1, 0.2], t_max=0.5)
    assert DDPM([0.1]) != 3
    assert len({VPSDE(), VPSDE(), DDPM([0.1]), DDPM([0.1])}) == 2


def test_c6_a_users_sde_may_not_start_at_a_point():
    """t_min = 0 needs var(0) > 0 on any SDE, not only on ours."""
    with pytest.raises(ConfigError, match=r"t_min.*0"):
        PlainOU(t_min=0.0)
    assert PlainOU(t_min=0.0, start=0.1).t_min == 0


@every_sde
def test_everything_is_derived(sde):
    """Two methods buy the whole interface."""
    x = torch.ones(2, 3, dtype=torch.float64)
    t = 0.5 * sde.t_max if "ddpm" not in sde.kinds else sde.t_max
    assert sde.reverse(lambda x, t: -x).drift(x, t).shape == x.shape
    assert sde.prior_log_prob(sde.prior_sample((2, 3))).shape == (2,)
    assert "linear" in sde.kinds
    assert sde.direction == 1


def test_examples_default_to_the_plain_object():
    assert PlainOU.examples() == [PlainOU()]
    assert EVERY["plain_ou"] == PlainOU()
    assert repr(PlainOU()).startswith("PlainOU(")


def test_a_process_that_changes_is_inverted_as_it_is_now():
    """A plain class may hold a parameter that is set, or learned."""

    class Learned(LinearSDE):
        def log_alpha(self, t):
            return -0.25 * self.b * t * t - 0.05 * t

        def var(self, t):
            return -torch.expm1(2 * self.log_alpha(t))

    sde = Learned()
    for b in (10.0, 30.0, 5.0, torch.nn.Parameter(torch.tensor(8.0, dtype=torch.float64))):
        sde.b = b
        assert float(sde.t_from_log_snr(sde.log_snr(0.9))) == pytest.approx(0.9, rel=1e-9)
        with pytest.raises(TimeError, match="log_snr must lie"):
            sde.t_from_log_snr(sde.log_snr(1.0).item() - 0.1)


def test_a_process_that_grows_an_attribute_is_inverted_as_it_is_now():
    """A plain class below a value one: equality does not see what it adds."""

    class Slower(VPSDE):
        def log_alpha(self, t):
            return self.share * super().log_alpha(t)

        def t_from_log_alpha(self, log_alpha):
            return super().t_from_log_alpha(log_alpha / self.share)

    sde = object.__new__(Slower)
    sde.__dict__.update(vars(VPSDE()))
    for share in (1.0, 0.5, 2.0):
        sde.__dict__["share"] = share
        assert float(sde.t_from_log_snr(sde.log_snr(0.9))) == pytest.approx(0.9, rel=1e-9)
        assert sde.log_snr_range[0] == float(sde.log_snr(1.0))
