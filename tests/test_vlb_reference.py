"""Claim: the terms of a chain's bound are improved-diffusion's to 1e-9, in nats for its bits/dim.

bits/dim = nats / (D ln 2). Its index i is node i + 1; its last column is the decoder's term. Its
decoder takes the tanh approximation; the values with the true distribution function are beside it.
Its training losses are per element: RESCALED_KL is N times a term, as here; RESCALED_MSE weighs a
term by N / 1000 in bits, which is weight = 0.001 / ln 2 here. Single elements of the discretised
Gaussian are compared with 50 digits.
"""

from __future__ import annotations

import math

import pytest
import torch
from sampling_support import WithFraction, reference_target
from support import assert_close, reference_cases

from sdekit import DDPM, ExactScore
from sdekit.likelihood.chain import chain_rows, prior_kl
from sdekit.likelihood.decoder import Decoder
from sdekit.model import Thresholded
from sdekit.objectives import VLB

EXACT = 1e-9
VARIANCES = {"fixed_small": "posterior", "fixed_large": "beta", "learned_range": "learned"}


def chain_of(about):
    if about["schedule"] == "cosine":
        return DDPM.cosine(about["T"])
    scale = 1000 / about["T"]
    return DDPM.linear(about["T"], beta_start=1e-4 * scale, beta_end=0.02 * scale)


def setting(about, reference):
    """The file, the model, the data as flat vectors."""
    data = reference.load("vlb")
    model = ExactScore(reference_target(reference, about["target"]), chain_of(about))
    if about.get("clip_denoised"):
        model = Thresholded(model, limit=1.0)
    if about["variance"].lower() == "learned_range":
        model = WithFraction(model, data.array("data", "frac").reshape(1, -1))
    return data, model, data.array("data", "x0").flatten(1)


def bits(nats, x):
    return nats / (x.shape[1] * math.log(2))


@pytest.mark.parametrize("about", reference_cases("vlb", lambda c: "clip_denoised" in c))
def test_terms(about, reference):
    data, model, x0 = setting(about, reference)
    chain = model.sde
    noise = data.array(f"noise/{about['schedule']}_{about['T']}", "noise").flatten(2)
    terms = {}
    for tanh in (True, False):
        loss = VLB(variance=VARIANCES[about["variance"]], decoder="discretized", tanh=tanh)
        columns = [
            loss.loss_at(model, x0, chain.time(chain.n - k), z) / chain.n
            for k, z in enumerate(noise)
        ]
        terms[tanh] = bits(torch.stack(columns, dim=1), x0)
    prior = bits(prior_kl(chain, x0), x0)
    assert_close(terms[True], data.array(about, "vb"), tol=EXACT)
    assert_close(prior, data.array(about, "prior_bpd"), tol=EXACT)
    assert_close(terms[True].sum(1) + prior, data.array(about, "total_bpd"), tol=EXACT)
    # its probabilities have a floor of 1e-12 here too, which none of these reaches
    assert_close(terms[False][:, -1], data.array(about, "decoder_bpd_exact_cdf"), tol=EXACT)
    whole = terms[False].sum(1) + prior
    assert_close(whole, data.array(about, "total_bpd_exact_cdf"), tol=EXACT)


@pytest.mark.parametrize("about", reference_cases("vlb", lambda c: c["case"].startswith("train/")))
def test_training_losses(about, reference):
    data, model, x0 = setting(about, reference)
    chain, kind = model.sde, about["loss_type"]
    node = data.array(about, "t").to(torch.int64) + 1
    noise = data.array(about, "noise").flatten(1)
    learned = about["variance"] == "LEARNED_RANGE"
    # RESCALED_MSE: N / 1000 times a term in bits; MSE: the term itself
    weight = (1 / 1000 if kind == "RESCALED_MSE" else 1 / chain.n) / math.log(2)
    objective = VLB(
        variance=VARIANCES[about["variance"].lower()], decoder="discretized", tanh=True,
        hybrid="MSE" in kind, weight=weight if learned else 0.0,
    )  # fmt: skip
    loss = objective.loss_at(model, x0, chain.time(node), noise)
    if "KL" in kind:
        loss = bits(loss, x0) / (1 if kind == "RESCALED_KL" else chain.n)
    assert_close(loss, data.array(about, "loss"), tol=EXACT)


def test_every_case_is_one_of_these(reference):
    data = reference.load("vlb")
    assert len(data.cases) == 27
    bare = [c["case"] for c in data.cases if "variance" not in c]
    assert bare == ["noise/linear_40", "noise/cosine_40", "data"]


@pytest.mark.parametrize("about", reference_cases("ddpm_chain", lambda c: "schedule" in c))
def test_ends_of_the_variance(about, reference):
    """log beta and the clipped log posterior variance, on respaced chains too."""
    data = reference.load("ddpm_chain")
    chain = getattr(DDPM, about["schedule"])(about["T"])
    if about["schedule"] == "linear":
        chain = chain_of(about)
    if "section_counts" in about:
        kept = data.array(about, "timestep_map").to(torch.int64) + 1
        chain = chain.respaced(kept.tolist())
    rows = chain_rows(chain)
    name = "betas_all" if f"{about['case']}/betas_all" in data._arrays else "betas"
    assert_close(rows.high, data.array(about, name).log(), tol=EXACT)
    clipped = data.array(about, "posterior_log_variance_clipped")
    if "index" in data._arrays or f"{about['case']}/index" in data._arrays:
        chosen = data.array(about, "index").to(torch.int64)
        assert_close(rows.low[chosen], clipped, tol=EXACT)
    else:
        assert_close(rows.low, clipped, tol=EXACT)


def test_elements_of_the_discretised_gaussian(reference):
    """Against 50 digits; the tanh values with their floor."""
    data = reference.load("ddpm_chain")
    x, mean, log_scale, tanh, precise = (
        data.array("discretized_gaussian", name)
        for name in ("x", "means", "log_scales", "loglik_tanh", "loglik_high_precision")
    )
    seen = -Decoder(kind="discretized").nats(x, mean, 2 * log_scale)
    torch.testing.assert_close(seen, precise, rtol=1e-11, atol=1e-15)
    seen = -Decoder(kind="discretized", tanh=True).nats(x, mean, 2 * log_scale)
    # its difference of two numbers near 1 is good to their rounding only
    torch.testing.assert_close(seen.exp(), tanh.exp(), rtol=1e-12, atol=4e-16)
    torch.testing.assert_close(seen, tanh, rtol=1e-6, atol=1e-15)
