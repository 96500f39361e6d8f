"""The numbers of other projects (shared/reference) for SDEs and chains, at 1e-9 in float64.

`sde_coefficients` is yang-song/score_sde_pytorch's sde_lib, `ddpm_chain` is improved-diffusion's.
"""

import pytest
import torch
from support import assert_close, reference_cases

from sdekit.sde import DDPM, VESDE, VPSDE, SubVPSDE

AGREE = 1e-9

CLASSES = {"VP": VPSDE, "sub-VP": SubVPSDE, "VE": VESDE}
sde_cases = pytest.mark.parametrize("case", reference_cases("sde_coefficients"))


def build(case):
    names = ("beta_min", "beta_max", "sigma_min", "sigma_max")
    return CLASSES[case["sde"]](**{name: case[name] for name in names if name in case})


@pytest.fixture
def of(reference, case):
    """The arrays of the case."""
    data = reference.load("sde_coefficients")
    return lambda key: data.array(case, key)


@sde_cases
def test_coefficients_and_marginals(case, of):
    sde, t, x = build(case), of("t"), of("x")
    assert_close(sde.drift(x, t), of("drift"), tol=AGREE)
    assert_close(sde.diffusion(t) / of("diffusion"), torch.ones_like(t), tol=AGREE)
    assert_close(sde.alpha(t) / of("mean_coef"), torch.ones_like(t), tol=AGREE)
    # the source's sqrt(1 - exp(..)) cancels at small t: its own error there is EPS/var
    own_error = 1e-16 / of("std").square() if case["sde"] != "VE" else torch.zeros_like(t)
    assert bool(((sde.sigma(t) / of("std") - 1).abs() <= AGREE + 4 * own_error).all())
    assert_close(sde.perturb(x, t, torch.zeros_like(x)), of("mean"), tol=AGREE)


@sde_cases
def test_reverse(case, of):
    """Reverse SDE and flow with the file's affine score s(x, t) = -(1 + t) a x + b."""
    sde, t, x = build(case), of("t"), of("x")

    def score(x, t):
        return -(1 + t.reshape(-1, 1, 1, 1)) * of("score_a") * x + of("score_b")

    for eta, name in ((1.0, "sde"), (0.0, "ode")):
        process = sde.reverse(score, eta=eta)
        drift = of(f"rev_{name}_drift")
        assert_close(process.drift(x, t), drift, tol=AGREE)
        # sample by sample too: VE's terms span ten orders of magnitude
        per_sample = (process.drift(x, t) - drift).flatten(1).abs().amax(1)
        assert bool((per_sample <= AGREE * drift.flatten(1).abs().amax(1)).all())
        assert_close(process.diffusion(t), of(f"rev_{name}_diffusion"), tol=AGREE)


@sde_cases
def test_prior(case, of):
    assert_close(build(case).prior_log_prob(of("prior_z")), of("prior_logp"), tol=AGREE)


@sde_cases
def test_discretisation(case, of):
    """One step of the source's `discretize`, built from ours with its conventions named.

    Its index is trunc(t (N - 1)) of its linspace(1, eps, N), taken from the file. VP: a DDPM of
    linspace(b0/N, b1/N, N). VE: steps between the nodes i/(N - 1), but sigma_{-1} = 0 at index 0,
    where our SDE declares var(0) = sigma_min^2 instead. Sub-VP: Euler-Maruyama with dt = 1/N.
    """
    sde, n, t, x = build(case), case["N"], of("t"), of("x")
    index = of("disc_index").long()
    assert torch.equal(index, (t * (n - 1)).long())
    if case["sde"] == "VP":
        chain = sde.discretize(n)
        assert_close(chain.betas, of("discrete_betas"), tol=AGREE)
        before, after = chain.time(index), chain.time(index + 1)
        scale, std = chain.transition(before, after)
        shrink = scale - 1
    elif case["sde"] == "VE":
        nodes = torch.arange(n, dtype=torch.float64) / (n - 1)
        assert_close(sde.sigma(nodes) / of("discrete_sigmas"), torch.ones(n).double(), tol=AGREE)
        after = nodes[index]
        before = nodes[(index - 1).clamp_min(0)]
        scale, std = sde.transition(before, after)
        std = torch.where(index == 0, sde.sigma(0.0), std)  # from sigma_{-1} = 0
        shrink = scale - 1
    else:
        shrink, std = sde.f(t) / n, sde.diffusion(t) / n**0.5
    f = shrink.reshape(-1, 1, 1, 1) * x
    assert_close(f, of("disc_f"), tol=AGREE)
    assert_close(std / of("disc_G"), torch.ones_like(t), tol=AGREE)
    score = -(1 + t.reshape(-1, 1, 1, 1)) * of("score_a") * x + of("score_b")
    for weight, name in ((1.0, "sde"), (0.5, "ode")):
        reverse = f - weight * std.square().reshape(-1, 1, 1, 1) * score
        assert_close(reverse, of(f"rev_{name}_disc_f"), tol=AGREE)
        assert_close(std * (name == "sde"), of(f"rev_{name}_disc_G"), tol=AGREE)


# chains -----------------------------------------------------------------------------------------


def whole_chain(case):
    n = case["T"]
    if case["schedule"] == "cosine":
        return DDPM.cosine(n)
    return DDPM.linear(n, beta_start=1e-4 * 1000 / n, beta_end=0.02 * 1000 / n)


def chain_of(case, data):
    """The chain of a case; the source indexes from 0, so its step i is our i + 1."""
    chain = whole_chain(case)
    if "section_counts" not in case:
        return chain, data.array(case, "index").long()
    kept = data.array(case, "timestep_map").long()
    return chain.respaced((kept + 1).tolist()), torch.arange(len(kept))


tables = pytest.mark.parametrize(
    "case", reference_cases("ddpm_chain", lambda case: "schedule" in case)
)


@tables
def test_chain_tables(case, reference):
    data = reference.load("ddpm_chain")
    chain, i = chain_of(case, data)

    def agrees(mine, key, *, rows=None):
        rows = torch.arange(len(i)) if rows is None else rows
        assert_close(mine[i[rows]], data.array(case, key)[rows], tol=AGREE)

    bar = chain.alphas_bar
    agrees(chain.betas, "betas")
    agrees(bar, "alphas_cumprod")
    agrees(bar.rsqrt(), "sqrt_recip_alphas_cumprod")
    agrees((1 / bar - 1).sqrt(), "sqrt_recipm1_alphas_cumprod")
    agrees(chain.posterior_variance, "posterior_variance")
    agrees(chain.posterior_mean_coefficients.x_0, "posterior_mean_coef1")
    agrees(chain.posterior_mean_coefficients.x_t, "posterior_mean_coef2")
    # the source replaces log(0) of the first step by that of the second; ours is 0 and not logged
    agrees(
        chain.posterior_variance.log(),
        "posterior_log_variance_clipped",
        rows=(i > 0).nonzero()[:, 0],
    )
    first = (i == 0).nonzero()[:, 0]
    clipped = data.array(case, "posterior_log_variance_clipped")[first]
    assert_close(clipped, chain.posterior_variance[1].log().expand(len(first)), tol=AGREE)
    if "betas_all" in {
        key.split("/")[-1] for key in data._arrays if key.startswith(case["case"] + "/")
    }:
        assert_close(chain.betas, data.array(case, "betas_all"), tol=AGREE)


@tables
def test_chain_as_an_sde(case, reference):
    """The same numbers from the SDE's own methods on the nodes."""
    data = reference.load("ddpm_chain")
    chain, i = chain_of(case, data)
    t, s = chain.time(i + 1), chain.time(i)
    one = torch.ones_like(t)
    assert_close(chain.alpha(t).square() / data.array(case, "alphas_cumprod"), one, tol=AGREE)
    assert_close(
        (0.5 * -chain.log_snr(t)).exp() / data.array(case, "sqrt_recipm1_alphas_cumprod"),
        one,
        tol=AGREE,
    )
    posterior = chain.posterior(s, t)
    assert_close(posterior.var, data.array(case, "posterior_variance"), tol=AGREE)
    assert_close(posterior.x_0, data.array(case, "posterior_mean_coef1"), tol=AGREE)
    assert_close(posterior.x_t, data.array(case, "posterior_mean_coef2"), tol=AGREE)


def test_respaced_alpha_bar_is_kept(reference):
    """Property 31 on the reference's subsets, bitwise."""
    data = reference.load("ddpm_chain")
    for case in data.cases:
        if "section_counts" in case:
            short, _ = chain_of(case, data)
            kept = data.array(case, "timestep_map").long()
            assert torch.equal(short.alphas_bar, whole_chain(case).alphas_bar[kept])


def test_normal_kl(reference):
    """The source's elementwise KL of Gaussians, as the step KLs of a chain will need it."""
    data = reference.load("ddpm_chain")
    case = data.case("normal_kl")
    mean1, log1, mean2, log2 = (
        data.array(case, key) for key in ("mean1", "logvar1", "mean2", "logvar2")
    )
    p = torch.distributions.Normal(mean1, (0.5 * log1).exp())
    q = torch.distributions.Normal(mean2, (0.5 * log2).exp())
    assert_close(torch.distributions.kl_divergence(p, q), data.array(case, "kl"), tol=AGREE)
