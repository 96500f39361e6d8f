"""Claim: an audit without the true score passes right networks, and says where wrong ones fail.

The measures have the values that algebra gives for linear networks on Gaussian data; exact models
of several processes and laws have none of them; every wrong network of `mutants` is caught by the
checks that it names; the intervals cover as often as they say; and every wrongly declared exact
Gaussian model is recognised, the right reading named (FAULTS E7).
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy import stats
from support import leaving

from sdekit import (
    DDPM,
    EDM,
    VESDE,
    VPSDE,
    CosineSDE,
    ExactScore,
    FlowSDE,
    Gaussian,
    GaussianMixture,
    ScoreModel,
    SubVPSDE,
    Trainer,
    make,
)
from sdekit.errors import (
    ConfigError,
    DataError,
    DtypeError,
    NonFiniteError,
    ShapeError,
    TimeError,
)
from sdekit.model import MLP, Moments
from sdekit.verify import CHECKS, check, check_model
from sdekit.verify.audit import REASONS, TOLERANCES, Audited, recognise
from sdekit.verify.audit.intervals import quantile
from sdekit.verify.audit.measures import linear_denoiser
from sdekit.verify.audit.table import MEASURES, curve
from sdekit.verify.mutants import audit as mutants
from sdekit.verify.runner import Asked, run

NAMES = [name for name, one in CHECKS.items() if one.kind == "model"]
MIXTURE = GaussianMixture([0.3, 0.7], [[2.0, 1.0], [-1.5, 0.0]], [0.3, 0.8])
VARIANCE = 0.6
ROUND = Gaussian(torch.zeros(2, dtype=torch.float64), VARIANCE)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(target, n, seed=0):
    return target.sample(n, generator=generator(seed), dtype=torch.float64)


def at(sde, t):
    """The time of a batch, float64: in float32, which such networks are told, 0.999 lies above."""
    return t[0].double().clamp_max(sde.t_max)


def found(network, name, *, sde=None, target=ROUND, n=20_000, kind="eps", **how):
    """The curve of a measure of a plain network."""
    model = ScoreModel(network, sde or VPSDE(), parametrization=kind)
    return curve(Audited(model, draws(target, n), draws=n, **how), name)


# values by algebra ------------------------------------------------------------------------------


def levels(sde, t):
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    return alpha, sigma, sigma / (alpha**2 * VARIANCE + sigma**2)  # eps* = the last times x


def scaled(c):
    """C eps* for N(0, VARIANCE I) on VP."""
    return lambda x, t: c * levels(VPSDE(), float(t[0]))[2] * x


def test_a_scaled_noise_is_off_by_c_times_1_minus_c():
    sde, c = VPSDE(), 0.8
    calibration = found(scaled(c), "noise_calibration")
    floor = found(scaled(c), "gaussian_floor")
    for k, t in enumerate(calibration.times):
        _, sigma, gain = levels(sde, t)
        size = sigma * gain  # E|eps*|^2 / d
        assert calibration.points[k].low <= c * (1 - c) * size <= calibration.points[k].high
        assert calibration.points[k].value == pytest.approx(c * (1 - c) * size, abs=0.02)
        assert floor.points[k].low <= (1 - c) ** 2 * size <= floor.points[k].high
        assert floor.points[k].value == pytest.approx((1 - c) ** 2 * size, abs=0.01)


def test_a_bias_is_seen_by_stein_at_its_size():
    curve_ = found(lambda x, t: scaled(1.0)(x, t) + 0.3, "stein_identity")
    for point in curve_.points:
        assert point.value == pytest.approx(0.3, abs=0.03)
        assert point.low <= 0.3 <= point.high


def test_the_martingale_sees_the_bias_that_does_not_follow_from_the_one_before():
    """D is off by -sigma b / alpha, so that b - (alpha_t sigma_s)/(sigma_t alpha_s) b is left."""
    sde = VPSDE()
    curve_ = found(lambda x, t: scaled(1.0)(x, t) + 0.3, "tweedie_martingale")
    grid = Audited(ExactScore(ROUND, sde), draws=200).times.tolist()
    for point, (s, t) in zip(curve_.points, itertools.pairwise(grid), strict=True):
        left = 0.3 * (1 - math.exp(0.5 * float(sde.log_snr(t) - sde.log_snr(s))))
        assert point.value == pytest.approx(left, abs=0.02)
        assert point.low <= left <= point.high


@pytest.mark.parametrize("d", [2, 12], ids=["whole", "probed"])
def test_a_rotation_is_the_asymmetry_of_the_jacobian(d):
    """J = g I + r R with R antisymmetric: |J - J^T|^2/|J|^2 = 4 r^2 |R|^2/(g^2 d + r^2 |R|^2)."""
    sde, r = VPSDE(), 0.2
    turn = torch.zeros(d, d, dtype=torch.float64)
    turn[0, 1], turn[1, 0] = 1.0, -1.0
    target = Gaussian(torch.zeros(d, dtype=torch.float64), VARIANCE)
    curve_ = found(
        lambda x, t: scaled(1.0)(x, t) + r * x @ turn, "jacobian_symmetry", target=target, n=4000
    )
    for t, point in zip(curve_.times, curve_.points, strict=True):
        _, sigma, gain = levels(sde, t)
        size = max(gain**2 * d + 2 * r**2, d / sigma**2)
        wanted = math.sqrt(8 * r**2 / size)
        assert point.value == pytest.approx(wanted, rel=1e-9 if d == 2 else 0.25)
        assert point.low <= wanted * (1 + 1e-9)
        assert point.high >= wanted * (1 - 1e-9)


@pytest.mark.parametrize("d", [2, 12], ids=["whole", "probed"])
def test_a_network_without_time_has_the_residual_of_the_equation(d):
    """For eps_hat = k x, s = -k x/sigma: the residual is linear, r = c x, with c by hand.

    sigma ds/dl = k x s'/s with s' = d sigma/dl, and the bracket of the equation is
    2 f k x/sigma + g^2 k^2 x/sigma^2.
    """
    sde, k = VPSDE(), 0.7
    target = Gaussian(torch.zeros(d, dtype=torch.float64), VARIANCE)
    curve_ = found(lambda x, t: k * x, "score_fokker_planck", target=target)
    assert len(curve_.times) >= 9
    for t, point in zip(curve_.times, curve_.points, strict=True):
        alpha, sigma, _ = levels(sde, t)
        f, g2 = float(sde.f(t)), float(sde.g2(t))
        rate = -(sigma**2) / g2 * (2 * f * sigma**2 + g2) / (2 * sigma)  # d sigma/dl
        c = k * rate / sigma + sigma**3 / g2 * (2 * f * k / sigma + g2 * k**2 / sigma**2)
        wanted = abs(c) * math.sqrt(alpha**2 * VARIANCE + sigma**2)
        assert point.value == pytest.approx(wanted, rel=0.15, abs=1e-6)
        assert point.low - 1e-6 <= wanted <= point.high + 1e-6


# right models -----------------------------------------------------------------------------------

_TILTED = Gaussian([0.5, -0.3, 1.0], [[1.0, 0.4, 0.0], [0.4, 0.5, 0.1], [0.0, 0.1, 0.2]])
EXACT = {
    "vp": ExactScore(MIXTURE, VPSDE()),
    "sub-vp": ExactScore(MIXTURE, SubVPSDE()),
    "ve": ExactScore(make("target", "tutorial"), VESDE()),
    "edm": ExactScore(MIXTURE, EDM()),
    "flow": ExactScore(_TILTED, FlowSDE()),
    "cosine": ExactScore(_TILTED, CosineSDE()),
    "ddpm": ExactScore(MIXTURE, DDPM.linear(100)),
    "one dimension": ExactScore(GaussianMixture([0.5, 0.5], [[1.0], [-1.0]], 0.1), VPSDE()),
    "many": ExactScore(Gaussian.from_spectrum([0.0] * 20, [0.1 * k + 0.05 for k in range(20)]),
                       VPSDE()),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_model_has_a_tenth_of_what_is_tolerated(name):
    audit = check_model(EXACT[name], max_examples=4096)
    assert audit.ok, str(audit)
    assert [result.name for result in audit] == NAMES
    for curve_ in audit.curves.values():
        assert max(curve_.sure) <= 0.1 * curve_.tolerance, curve_
    skipped = {result.name: result.reason for result in audit if result.status == "skipped"}
    assert set(skipped) == (
        {"jacobian_symmetry"} if name == "one dimension"
        else {"score_fokker_planck"} if name == "ddpm" else set()
    )  # fmt: skip


@pytest.mark.slow
def test_a_trained_network_passes_and_one_that_was_stopped_early_does_not():
    data = make("target", "tutorial")
    held_out = draws(data, 8192, seed=1)
    model = ScoreModel(MLP(2, width=64, seed=0), VPSDE())
    early = Trainer(model, lr=3e-3, batch_size=256, ema=None)
    early.fit(data, steps=30)
    audit = check_model(model, held_out, max_examples=8192)
    assert {result.name for result in audit.failures} & {"stein_identity", "gaussian_floor"}
    model = ScoreModel(MLP(2, width=48, seed=0), VPSDE())
    trainer = Trainer(model, lr=5e-3, batch_size=256)
    trainer.fit(data, steps=1000)
    audit = check_model(trainer.ema_model, held_out, max_examples=8192)
    assert audit.ok, str(audit)


# wrong models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", leaving([0, 1, 2], lambda seed: seed > 0))
def test_the_right_network_of_the_mutants_passes(seed):
    right = mutants.audited(mutants.noise, seed=seed)
    results = [run(CHECKS[name], right, "right", Asked(seed=seed), "") for name in NAMES]
    assert all(result.status == "passed" for result in results), results
    assert sum(result.seconds for result in results) < 10


@pytest.mark.parametrize("mutant", mutants.ROWS, ids=lambda mutant: mutant.name)
def test_every_mutant_is_caught_by_the_checks_it_names(mutant):
    for name in mutant.caught_by:
        result = run(CHECKS[name], mutant.wrong, mutant.name, Asked(), "")
        assert result.status == "failed", str(result)
        assert not result.says.startswith("it raised")


def test_every_check_catches_a_mutant():
    assert {name for mutant in mutants.ROWS for name in mutant.caught_by} == set(NAMES)
    assert len(mutants.ROWS) >= 10


def test_a_bad_stretch_is_found_where_it_is():
    (wrong,) = (row.wrong for row in mutants.ROWS if row.name == "network_bad_stretch")
    times = torch.linspace(0.06, 0.96, 19, dtype=torch.float64)
    audited = Audited(wrong.model, mutants.DATA, times=times)
    report = check(audited, only="noise_calibration")
    assert set(curve(audited, "noise_calibration").beyond) == {
        t for t in times.tolist() if 0.4 < t < 0.6
    }
    assert "at 4 of 19 times, t = 0.41 to 0.56" in report.failures[0].says


# recognition ------------------------------------------------------------------------------------

KINDS = ["eps", "x0", "v", "score", "flow"]
PROCESSES = {
    "vp": VPSDE(), "sub-vp": SubVPSDE(), "ve": VESDE(), "flow": FlowSDE(), "cosine": CosineSDE(),
}  # fmt: skip
EVERY = [*itertools.product(KINDS, (1, -1), (False, True))]
FEW = [(kind, sign, back) for kind, sign, back in EVERY if not (sign < 0 and back)]


def gaussian(sde, variance, kind, sign, backwards):
    """The exact network for N((1, -1/2), variance I), by hand."""
    mean = torch.tensor([1.0, -0.5], dtype=torch.float64)

    def network(x, t):
        time = at(sde, t)
        if backwards:
            time = (sde.t_max - time).clamp_min(sde.t_min)
        alpha, sigma = sde.alpha(time), sde.sigma(time)
        eps = sigma * (x - alpha * mean) / (alpha**2 * variance + sigma**2)
        a, b = make("parametrization", kind).row(sde, time)
        return sign * (a / alpha * (x - sigma * eps) + b * eps)

    return network


def recognised(sde, variance, readings):
    """How many wrong declarations there were; each must be recognised, the right one named."""
    data = draws(Gaussian(torch.tensor([1.0, -0.5], dtype=torch.float64), variance), 1024)
    asked = 0
    for true, sign, backwards in readings:
        network = gaussian(sde, variance, true, sign, backwards)
        wanted = ("-" if sign < 0 else "") + true
        wanted += " with the time backwards, t_max - t" if backwards else ""
        model = ScoreModel(network, sde, parametrization=true)
        audited = Audited(model, data, draws=2048)
        for declared in KINDS:
            if not backwards and same(sde, true, declared, sign):
                continue
            seen = recognise(audited, make("parametrization", declared))
            assert not seen.right, (declared, wanted, seen.sentence)
            assert wanted in [str(reading) for reading in (seen.best, *seen.equal)]
            assert f"declared {declared}, but the output fits" in seen.sentence
            asked += 1
    return asked


def test_wrong_declarations_of_a_gaussian_model_are_recognised():
    """FAULTS E7, 100 %: each kind, or its negative, or told t_max - t, declared as every kind."""
    assert recognised(VPSDE(), 0.25, FEW) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("variance", [0.25, 4.0])
@pytest.mark.parametrize("process", PROCESSES)
def test_every_wrong_declaration_of_a_gaussian_model_is_recognised(process, variance):
    """All of 5 kinds, 2 signs and 2 directions, declared as every kind."""
    assert recognised(PROCESSES[process], variance, EVERY) >= 90


@pytest.mark.parametrize(("true", "declared"), [*itertools.permutations(["eps", "x0", "v"], 2)])
def test_the_right_kind_is_named_to_the_user(true, declared):
    network = gaussian(VPSDE(), 0.25, true, 1, False)
    data = draws(Gaussian(torch.tensor([1.0, -0.5], dtype=torch.float64), 0.25), 1024)
    audit = check_model(
        network, data, sde=VPSDE(), parametrization=declared, only="declared_reading"
    )
    assert audit.failures[0].says.startswith(f"declared {declared}, but the output fits {true}:")


def same(sde, true, declared, sign):
    """Whether both mean the same function of (x, t)."""
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    rows = [torch.stack(make("parametrization", kind).row(sde, t)) for kind in (true, declared)]
    return bool(torch.allclose(sign * rows[0], rows[1]))


@pytest.mark.parametrize("kind", [*KINDS, "edm", "edm(sigma_data=3.0)"])
@pytest.mark.parametrize("process", ["vp", "flow"])
def test_a_right_declaration_is_left_alone(process, kind):
    exact = ExactScore(MIXTURE, PROCESSES[process])
    parametrization = make("parametrization", kind)

    def network(x, t):
        time = at(exact.sde, t)
        scale = parametrization.input_scale(exact.sde, time)
        a, b = parametrization.row(exact.sde, time)
        return exact(x if scale is None else x / scale, float(time)).linear(x0=a, eps=b)

    model = ScoreModel(network, exact.sde, parametrization=parametrization)
    seen = recognise(Audited(model, draws(MIXTURE, 500), draws=1000, times=8))
    assert seen.right
    assert str(seen.declared) == kind.replace("edm", "edm(sigma_data=0.5)", kind == "edm")


def test_readings_that_nothing_tells_apart_are_named_together():
    """For N(0, I) on VP v and the flow are 0 everywhere."""
    model = ScoreModel(lambda x, t: 0 * x, VPSDE(), parametrization="eps")
    seen = recognise(Audited(model, draws(Gaussian([0.0, 0.0], 1.0), 4096), draws=4096))
    assert not seen.right
    assert {str(r) for r in (seen.best, *seen.equal)} >= {"v", "-v", "flow", "-flow"}
    assert str(seen.best) in ("v", "flow")


def test_a_network_of_edm_declared_as_eps_is_recognised():
    exact = ExactScore(MIXTURE, EDM())
    parametrization = make("parametrization", "edm")

    def network(x, t):
        time = at(exact.sde, t)
        a, b = parametrization.row(exact.sde, time)
        clean = x / parametrization.input_scale(exact.sde, time)
        return exact(clean, float(time)).linear(x0=a, eps=b)

    audit = check_model(
        network, draws(MIXTURE, 1024), sde=EDM(), parametrization="eps", only="declared_reading"
    )
    assert "but the output fits edm(sigma_data=0.5)" in audit.failures[0].says


def test_a_chain_told_indices_backwards_is_recognised():
    chain = DDPM.linear(50)
    exact = ExactScore(MIXTURE, chain)

    def network(x, index):  # 0 is the noisiest
        return exact(x, float(chain.time(50 - int(index[0])))).eps

    model = ScoreModel(network, chain, time_input="index")
    seen = recognise(Audited(model, draws(MIXTURE, 1024), draws=2048))
    assert not seen.right
    assert str(seen.best) == "eps with the time backwards, t_max - t"


# intervals --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_intervals_cover_as_often_as_they_say():
    """Over 150 data sets: two standard errors hold 0 in 95.4 % of the cases, at every time."""
    names = ["noise_calibration", "gaussian_floor", "stein_identity"]
    runs, times = 150, torch.tensor([0.05, 0.5], dtype=torch.float64)
    exact = ExactScore(ROUND, VPSDE())
    outside = dict.fromkeys(names, 0)
    for seed in range(runs):
        audited = Audited(exact, draws(ROUND, 400, seed=seed), draws=800, times=times, seed=seed)
        for name in names:
            for point in curve(audited, name).points:
                outside[name] += abs(point.value) > 2 * point.stderr
    # the floor of a Gaussian is met but for the error of its moments; Stein is the worst of six
    for name, share in (("noise_calibration", 0.0455), ("stein_identity", 6 * 0.0455)):
        most = stats.binom.isf(1e-6, 2 * runs, share)
        assert outside[name] <= most, (name, outside)
    assert outside["noise_calibration"] >= stats.binom.ppf(1e-6, 2 * runs, 0.0455)


def test_the_verdict_has_the_false_alarm_rate_of_the_kit():
    """1e-12 a check, by Student, shared among what is compared."""
    for n, comparisons in ((100, 1), (8192, 72)):
        wanted = stats.t.isf(0.5e-12 / comparisons, n - 1)
        assert quantile(n, comparisons) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_a_defect_of_just_what_is_tolerated_is_no_failure(seed):
    """Its measured value is beyond the tolerance at some times, and its interval is not."""
    audit = check_model(
        lambda x, t: scaled(1.0)(x, t) + 0.1, draws(ROUND, 4096, seed=seed), sde=VPSDE(),
        parametrization="eps", only="stein_identity", seed=seed,
        tolerances={"stein_identity": 0.1},
    )  # fmt: skip
    assert audit.ok, str(audit)
    assert max(point.value for point in audit.curves["stein_identity"].points) > 0.1


def test_few_samples_are_noised_often_and_counted_once():
    """100 samples noised 80 times say what 100 samples can: the error is that of their means."""
    exact, t = ExactScore(ROUND, VPSDE()), torch.tensor([0.2, 0.9], dtype=torch.float64)
    few = Audited(exact, draws(ROUND, 100), draws=8000, times=t)
    many = Audited(exact, draws(ROUND, 4000), draws=8000, times=t)
    assert (few.n, few.each, many.n, many.each) == (100, 80, 4000, 2)
    assert len(few.at(0).x) == len(many.at(0).x) == 8000
    outside, runs = 0, 60
    for seed in range(runs):
        data = draws(ROUND, 100, seed=seed)
        audited = Audited(exact, data, draws=4000, times=t, seed=seed)
        point = curve(audited, "noise_calibration").points[0]
        outside += abs(point.value) > 2 * point.stderr
    assert outside <= stats.binom.isf(1e-6, runs, 2 * stats.t.sf(2, 99))


# samples of any shape ---------------------------------------------------------------------------


@pytest.mark.slow
def test_images_are_audited_in_their_own_shape():
    """A linear network on images (1, 6, 6), right, reflected, and turned by a quarter."""
    variance, shape = 0.3, (1, 6, 6)
    data = variance**0.5 * torch.randn(1024, *shape, generator=generator(), dtype=torch.float64)

    def network(x, t):
        assert x.shape[1:] == shape
        alpha, sigma = float(VPSDE().alpha(t[0])), float(VPSDE().sigma(t[0]))
        return sigma * x / (alpha**2 * variance + sigma**2)

    how = {"sde": VPSDE(), "parametrization": "eps", "max_examples": 2048}
    audit = check_model(network, data, **how)
    assert audit.ok, str(audit)
    assert all(result.status == "passed" for result in audit)
    wrong = check_model(lambda x, t: network(x, t).mT, data, **how)
    assert "jacobian_symmetry" not in {result.name for result in wrong.failures}  # a reflection
    assert {"noise_calibration", "gaussian_floor"} <= {result.name for result in wrong.failures}
    turned = check_model(lambda x, t: network(x, t).rot90(1, (2, 3)), data, **how)
    assert "jacobian_symmetry" in {result.name for result in turned.failures}


def test_the_linear_denoiser_of_a_low_rank_is_that_of_its_gaussian():
    law = Moments([0.5, -1.0, 0.0, 2.0], [3.0, 0.5], torch.eye(4)[:, :2].double(), rest=0.2)
    exact = ExactScore(law.as_gaussian(), VPSDE())
    audited = Audited(exact, draws=200)
    for seen in audited.all():
        eps = linear_denoiser(audited, (law, law), seen)
        assert torch.allclose(eps, seen.eps, rtol=1e-9, atol=1e-12)


# what is asked of the user ----------------------------------------------------------------------

_MODEL = ScoreModel(MLP(2, seed=0), VPSDE())
_DATA = draws(MIXTURE, 200)
_BAD = _DATA.clone()
_BAD[3, 1] = math.nan


@pytest.mark.parametrize(
    ("error", "says", "arguments", "named"),
    [
        (ConfigError, "data must be held-out", (_MODEL,), {}),
        (DtypeError, "data must be a torch.Tensor", (_MODEL, _DATA.tolist()), {}),
        (DtypeError, "cast to float", (_MODEL, _DATA.long()), {}),
        (ShapeError, r"\(n, \*dims\)", (_MODEL, _DATA[:, 0]), {}),
        (DataError, "at least 100 samples", (_MODEL, _DATA[:99]), {}),
        (NonFiniteError, r"1 of 200 rows, first: \[3\]", (_MODEL, _BAD), {}),
        (ShapeError, r"\(batch, 2\)", (EXACT["vp"], draws(_TILTED, 200)), {}),
        (ConfigError, "sde=.*parametrization=", (_MODEL.network, _DATA), {}),
        (ConfigError, "parametrization", (_MODEL.network, _DATA), {"sde": VPSDE()}),
        (ConfigError, "sde belongs to a plain network", (_MODEL, _DATA), {"sde": VPSDE()}),
        (DtypeError, "callable", (3, _DATA), {"sde": VPSDE(), "parametrization": "eps"}),
        (ConfigError, "did you mean 'eps'",
         (_MODEL.network, _DATA), {"sde": VPSDE(), "parametrization": "epss"}),
        (ConfigError, "times must be an int >= 2", (_MODEL, _DATA), {"times": 1}),
        (TimeError, "sigma", (_MODEL, _DATA), {"times": torch.tensor([0.0, 0.5])}),
        (TimeError, "t_max", (_MODEL, _DATA), {"times": torch.tensor([0.5, 1.5])}),
        (ConfigError, "max_examples must be an int >= 200", (_MODEL, _DATA), {"max_examples": 9}),
        (ConfigError, "did you mean 'stein_identity'",
         (_MODEL, _DATA), {"tolerances": {"stein": 1.0}}),
        (ConfigError, "must be > 0", (_MODEL, _DATA), {"tolerances": {"stein_identity": 0.0}}),
        (ConfigError, "did you mean 'stein_identity'", (_MODEL, _DATA), {"only": "stein_identty"}),
    ],
)  # fmt: skip
def test_wrong_use_is_named(error, says, arguments, named):
    with pytest.raises(error, match=says):
        check_model(*arguments, **named)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (lambda x, t: x / 0, "NonFiniteError: the model's output at t ="),
        (lambda x, t: x[:, :1], "ShapeError: the network must return"),
        (lambda x, t: None, "ModelError: the network must return a tensor"),
    ],
    ids=["nan", "shape", "none"],
)
def test_a_network_that_fails_is_a_failure_of_each_check(network, says):
    audit = check_model(network, _DATA, sde=VPSDE(), parametrization="eps")
    assert len(audit.failures) == len(NAMES)
    assert all(says in result.says for result in audit.failures), str(audit)


def test_a_network_without_gradients_is_not_asked_for_them():
    exact = EXACT["vp"]
    audit = check_model(
        lambda x, t: exact(x.detach(), float(t[0])).eps, sde=VPSDE(), parametrization="eps",
        data=draws(MIXTURE, 4096), max_examples=4096,
    )  # fmt: skip
    assert audit.ok, str(audit)
    reasons = {result.name: result.reason for result in audit if result.status == "skipped"}
    assert set(reasons) == {"jacobian_symmetry", "score_fokker_planck"}
    assert all("gradient" in reason for reason in reasons.values())


def test_nothing_is_left_changed_and_a_seed_repeats():
    model = ScoreModel(torch.nn.Sequential(), VPSDE())
    network = _Dropping()
    model = ScoreModel(network, VPSDE()).train()
    before = _DATA.clone()
    first, again, other = (
        check_model(model, _DATA, seed=seed, only="stein_identity") for seed in (0, 0, 1)
    )
    assert model.training
    assert network.drop.training
    assert torch.equal(before, _DATA)
    assert all(p.grad is None for p in model.parameters())
    assert first.curves == again.curves
    assert first.curves["stein_identity"] != other.curves["stein_identity"]


class _Dropping(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.drop = MLP(2, width=8, depth=1, seed=0), torch.nn.Dropout(0.5)

    def forward(self, x, t):
        return self.drop(self.inner(x, t))


def test_tolerances_are_the_users_to_set():
    network = scaled(0.9)
    how = {
        "sde": VPSDE(), "parametrization": "eps", "data": draws(ROUND, 4096),
        "only": "noise_calibration", "max_examples": 4096,
    }  # fmt: skip
    assert not check_model(network, **how).ok
    assert check_model(network, **how, tolerances={"noise_calibration": 0.2}).ok
    assert check_model(network, **how, expected_failures={"noise_calibration": "shrunk"}).ok
    assert set(TOLERANCES) == set(REASONS) == set(MEASURES)


def test_the_picture_shows_every_curve_and_marks_what_is_beyond():
    (wrong,) = (row.wrong for row in mutants.ROWS if row.name == "network_bias")
    audit = check_model(wrong.model, mutants.DATA, max_examples=1000, times=6)
    figure = audit.plot()
    panels = dict(zip(audit.curves, figure.axes, strict=True))
    assert set(panels) == set(MEASURES)
    stein = audit.curves["stein_identity"]
    drawn = [line for line in panels["stein_identity"].lines if line.get_marker() == "o"]
    orange = next(line for line in drawn if line.get_color() == "#D55E00")
    assert len(orange.get_ydata()) == len(stein.beyond) > 0
    everything = sorted(y for line in drawn for y in line.get_ydata())
    assert everything == pytest.approx(sorted(p.value for p in stein.points))
