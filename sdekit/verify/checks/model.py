r"""Trained networks, audited without the true score: `sdekit.verify.audit` measures, these judge.

A trained network is never exact: each claim is |defect| <= tolerance, and a check fails where the
whole interval of the defect lies beyond it at some time (`sdekit.verify.audit.intervals`).
"""

from __future__ import annotations

from typing import Any

from sdekit.verify.audit.recognition import MISFIT, recognise
from sdekit.verify.audit.table import finding
from sdekit.verify.claims import Finding, claim

_NEEDS = ("model",)


@claim(
    "model",
    "no other parametrisation, sign or direction of time fits the raw output clearly better than "
    "the declared one: E|eps_hat - eps|^2 is least for it",
    "the definitions, sdekit.model.parametrization, eq. 1",
    needs=_NEEDS,
    cost="fast",
)
def declared_reading(audited: Any) -> Finding:
    """Every reading is tried, and the right one named."""
    found = recognise(audited)
    return Finding(0.0 if found.right else found.misses, MISFIT, found.sentence)


@claim(
    "model",
    "E[h . s + div h] = 0 for x ~ p_t: h = u f(z) with f = 1, z, tanh z",
    "Stein (1972); arXiv:1602.03253, eq. 4",
    needs=_NEEDS,
    cost="fast",
)
def stein_identity(audited: Any) -> Finding:
    """Of held-out samples, noised."""
    return finding(audited, "stein_identity")


@claim(
    "model",
    "E[eps . eps_hat] = E|eps_hat|^2: the error of a conditional mean is orthogonal to it",
    "doi:10.1162/NECO_a_00142, section 4.3",
    needs=_NEEDS,
    cost="fast",
)
def noise_calibration(audited: Any) -> Finding:
    """The size of the predicted noise, on average."""
    return finding(audited, "noise_calibration")


@claim(
    "model",
    "E|eps_hat - eps|^2 is no more than that of the best linear denoiser, "
    "sigma (alpha^2 C + sigma^2 I)^{-1} (x - alpha m)",
    "the least squares of a linear model; arXiv:2206.00364, eq. 57",
    needs=_NEEDS,
    cost="fast",
)
def gaussian_floor(audited: Any) -> Finding:
    """Against the mean and covariance of the other half of the data."""
    return finding(audited, "gaussian_floor")


@claim(
    "model",
    "E[D(x_s, s) | x_t] = D(x_t, t) for s < t: the denoiser is a martingale in reversed time",
    "doi:10.1198/jasa.2011.tm11181, eq. 1.4, and the tower property",
    needs=_NEEDS,
    cost="fast",
)
def tweedie_martingale(audited: Any) -> Finding:
    """From each time to the next, against functions of x_t."""
    return finding(audited, "tweedie_martingale")


@claim(
    "model",
    "the Jacobian of the score is symmetric: it is the Hessian of log p_t",
    "arXiv:2210.04296, section 3",
    needs=_NEEDS,
    cost="fast",
)
def jacobian_symmetry(audited: Any) -> Finding:
    """By autograd, whole or along random directions."""
    return finding(audited, "jacobian_symmetry")


@claim(
    "model",
    "ds/dt = -grad[div f + f . s - g^2/2 (div s + |s|^2)]",
    "arXiv:2210.04296, eq. 6",
    needs=_NEEDS,
    cost="fast",
)
def score_fokker_planck(audited: Any) -> Finding:
    """At noisy samples, in units of the noise for a change of the log-SNR by 1."""
    return finding(audited, "score_fokker_planck")
