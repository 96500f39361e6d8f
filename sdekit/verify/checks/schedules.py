"""The schedules of a linear SDE as functions: inverse, precision, forms, gradients, copies."""

from __future__ import annotations

import copy
from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from sdekit.verify import density
from sdekit.verify.checks.marginals import _TIGHT, _times
from sdekit.verify.claims import Finding, Skip, agree, claim, no_more_than
from sdekit.verify.density import slope
from sdekit.verify.strategies import log_uniform, times


@claim(
    "sde",
    "t_from_log_snr is the inverse of log_snr",
    "arXiv:2107.00630, section 5",
    needs=("t_from_log_snr", "log_snr"),
    cases=_times,
)
def log_snr_inverse(sde: Any, t: Tensor) -> Finding:
    """In the log-SNR, where it is well conditioned at every t."""
    wanted = sde.log_snr(t)
    back = sde.log_snr(sde.t_from_log_snr(wanted))
    return agree(
        "log_snr(t_from_log_snr(l))",
        back,
        "l",
        wanted,
        tol=1e-9,
        scale=wanted.abs().clamp_min(1.0),
        at={"t": t},
    )


@claim(
    "sde",
    "log_alpha and var keep their relative precision down to t = 1e-12 t_max",
    "Higham, Accuracy and Stability of Numerical Algorithms, section 1.14.1",
    needs=("log_alpha", "var"),
    cases=lambda sde: log_uniform(1e-12, 1e-5),
)
def small_times(sde: Any, at: float) -> Finding:
    """Fourth differences of log var over log t: a smooth function's vanish, lost digits do not."""
    t = at * sde.t_max * torch.exp(1e-3 * torch.arange(12, dtype=torch.float64))
    worst = Finding(0.0, 1e-10)
    for name, values in (("var", sde.var(t)), ("log_alpha", sde.log_alpha(t).abs())):
        if not bool((values > 0).all()) or name not in getattr(sde, "stated", (name,)):
            continue  # alpha = 1, or a logarithm of the kit's own
        rough = float(values.log().diff(n=4).abs().max()) / 16
        if rough > worst.measured:
            says = (
                f"{name} carries a relative error of about {rough:.2g} near t = {float(t[0]):.3g}"
            )
            worst = no_more_than(rough, 1e-10, says)
    return worst


@claim(
    "sde",
    "a schedule's value at a time depends on that time alone, whatever its shape, dtype or batch",
    "conventions of sdekit, 6",
    needs=("transition", "log_alpha", "var"),
    cases=_times,
)
def times_of_any_form(sde: Any, t: Tensor) -> Finding:
    """One by one, as floats, as a column, and in float32."""
    if hasattr(sde, "thing"):
        raise Skip("a stranger may take times in one form only")
    for name in ("log_alpha", "var"):
        method = getattr(sde, name)
        whole = method(t)
        forms = {
            "a batch of one": torch.cat([method(t[k : k + 1]) for k in range(len(t))]),
            "floats": torch.stack([method(float(v)) for v in t]),
            "a column": method(t[:, None])[:, 0],
            "reversed": method(t.flip(0)).flip(0),
        }
        for form, values in forms.items():
            found = agree(
                f"{name} for {form}", values, f"{name} for a batch", whole, tol=1e-15, at={"t": t}
            )
            if not found.ok:
                return found
        single = t.float()
        narrow = agree(
            f"{name} in float32",
            method(single),
            "in float64",
            method(single.double().clamp_max(sde.t_max)),
            tol=3e-7,
            at={"t": t},
            scale=whole.abs() + 1e-37,
        )
        if not narrow.ok or method(single).dtype is not torch.float32:
            return narrow if not narrow.ok else no_more_than(1.0, 0.0, f"{name} is not float32")
    return no_more_than(0.0, 0.0, "the same values in every form")


@claim(
    "sde",
    "the gradient that flows through t is the derivative in t",
    "conventions of sdekit, 6",
    needs=("transition", "log_alpha", "var"),
    cases=lambda sde: times(sde, 4, least=1e-6, most=0.99),
)
def gradients_in_time(sde: Any, t: Tensor) -> Finding:
    """Autograd against differences of two widths; a time at which those disagree is a kink."""
    if hasattr(sde, "thing"):
        raise Skip("a stranger may take times in one form only")
    if "ddpm" in sde.kinds:
        raise Skip("the times of a chain are its kinks")
    for name in ("log_alpha", "var"):
        function = getattr(sde, name)
        wide = density.differences(function, t, 1e-4)
        fine = density.differences(function, t, 5e-5)
        size = function(t).detach().abs() / t + fine.abs()
        smooth = (wide - fine).abs() <= 1e-9 * size
        if not bool(smooth.any()):
            continue
        found = agree(
            f"the gradient of {name}",
            slope(function, t)[smooth],
            "its derivative",
            fine[smooth],
            tol=_TIGHT,
            scale=size[smooth],
            at={"t": t[smooth]},
        )
        if not found.ok:
            return found
    return no_more_than(0.0, 0.0, "gradients are derivatives")


@claim(
    "sde",
    "a deep copy is the same process",
    "conventions of sdekit",
    needs=("log_alpha", "var"),
    cases=lambda sde: st.just(None),
)
def copies_agree(sde: Any, _: None) -> Finding:
    """Value by value."""
    other = copy.deepcopy(sde)
    t = sde.t_max * torch.linspace(0.05, 1.0, 20, dtype=torch.float64)
    for name in ("log_alpha", "var"):
        found = agree(
            f"{name} of a copy",
            getattr(other, name)(t),
            name,
            getattr(sde, name)(t),
            tol=0.0,
            at={"t": t},
        )
        if not found.ok:
            return found
    return no_more_than(abs(other.t_max - sde.t_max), 0.0, f"t_max of a copy: {other.t_max}")
