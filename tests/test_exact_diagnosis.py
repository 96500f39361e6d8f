"""Claim: a diagnosis names the cause that was planted, and what it says of a mend is what it does.

Every mend's number is compared with a run in which the change was made by hand; the best comes
first; where nothing helps, where the error is small or not to be seen, the sentence says so. The
picture names the same mode in the same words; laws without a density are told without a nan.
"""

from __future__ import annotations

import json
import math

import pytest
import torch
from sampling_support import Given
from strategies import f64

from sdekit import DDPM, VESDE, VPSDE, ExactScore, FlowSDE, Gaussian, ScoreModel, make
from sdekit.cli.waterfall import waterfall
from sdekit.exact import attribute_error, diagnosis, mends
from sdekit.exact.diagnosis import diagnose
from sdekit.model import MLP
from sdekit.targets import GaussianMixture

LAW = Gaussian(f64([0.5, -1.0, 2.0]), torch.diag(f64([0.02, 0.5, 2.0])))
TWO = GaussianMixture(f64([0.3, 0.7]), f64([[-2.0], [1.0]]), f64([0.09, 0.25]))
TRUE = "the true x_T (noised data) as start"


def tilted(target, sde, factor=0.5):
    """A network that is not the score: it is a multiple of it."""
    exact = ExactScore(target, sde)
    return Given(lambda x, t: factor * exact.at(t).score(x), sde)


def by_action(found):
    """The mends by what they do."""
    return {mend.action: mend for mend in found.mends}


@pytest.mark.slow
def test_the_tutorial_is_diagnosed():
    found = diagnose("ancestral", ExactScore(make("target", "tutorial"), DDPM.linear(100)))
    assert found.cause == found.budget.cause == "initialisation"
    assert found.budget.exact
    assert 0.598 < float(found.budget.weights[1]) < 0.605
    said = found.sentence
    assert said.startswith("Initialisation is the cause: alpha_bar_T is 0.36, so that N(0, I) is")
    assert f"W2 {found.budget.total.w2:.3g}" in said.replace("alone, ", "W2 ")
    assert f"TV {found.budget.total.tv:.2g}" in said
    assert "the large mode gets 0.601 instead of 0.800" in said
    tried = by_action(found)
    assert found.mends[0].action == TRUE
    assert abs(float(tried[TRUE].weights[1]) - 0.8) < 1e-3
    assert tried["prior='matched'"].w2 < 0.3 * found.budget.total.w2
    assert tried["beta_end=0.2"].w2 < 0.2 * found.budget.total.w2
    assert tried["zero terminal SNR"].w2 < 0.2 * found.budget.total.w2
    assert set(found.not_tried) == {"n=1000 in the same 100 steps"}
    assert all(not mend.retrain for mend in found.mends)
    assert str(found).endswith(said)


# what is told of a mend is what the change does: (sampler, process, arguments, changes by hand)
BY_HAND = [
    ("ddim", VPSDE(beta_max=2.0), {}, {
        "prior='matched'": (None, {"prior": "matched"}),
        "beta_max=19.2": (VPSDE(beta_max=19.2), {}),
    }),
    ("heun", VESDE(sigma_max=3.0), {"steps": 20}, {
        "prior='matched'": (None, {"prior": "matched"}),
        "sigma_max=12": (VESDE(sigma_max=12.0), {}),
    }),
    ("ancestral", VPSDE(), {"steps": 30}, {
        "60 steps": (None, {"steps": 60}),
        "grid='karras'": (None, {"grid": "karras"}),
        "grid='log_snr'": (None, {"grid": "log_snr"}),
        "grid='quadratic'": (None, {"grid": "quadratic"}),
    }),
    ("heun", FlowSDE(t_min=0.2), {"steps": 40}, {
        "denoise=True": (None, {"denoise": True}),
        "t_min=0.02": (FlowSDE(t_min=0.02), {}),
    }),
    ("ancestral", DDPM.linear(20, beta_start=0.005, beta_end=0.5), {}, {
        "a chain of 40 steps with half the betas": (
            DDPM.linear(40, beta_start=0.0025, beta_end=0.25), {}
        ),
    }),
    ("ddim", DDPM.linear(60), {"steps": 30}, {
        "beta_end=0.34": (DDPM.linear(60, beta_end=0.34), {}),
        "n=1020 in the same 30 steps": (DDPM.linear(1020), {}),
    }),
    ("ddim", DDPM.linear(100, beta_end=0.15), {"grid": "ddpm_leading", "steps": 3}, {
        "6 steps": (None, {"steps": 6}),
        "grid='uniform'": (None, {"grid": "uniform"}),
    }),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sampler", "sde", "given", "by_hand"), BY_HAND, ids=lambda v: str(v)[:40]
)
def test_a_mend_is_worth_what_the_change_by_hand_is(sampler, sde, given, by_hand):
    found = diagnose(sampler, ExactScore(LAW, sde), **given)
    told = by_action(found)
    assert [mend.w2 for mend in found.mends] == sorted(mend.w2 for mend in found.mends)
    for action, (other, changes) in by_hand.items():
        assert action in told, (list(told), dict(found.not_tried))
        model = ExactScore(LAW, sde if other is None else other)
        expected = attribute_error(sampler, model, **{**given, **changes}).total.w2
        assert told[action].w2 == pytest.approx(expected, rel=1e-9)


PLANTED = [
    ("initialisation", "ddim", VPSDE(beta_max=1.0), {"steps": 200}),
    ("discretisation", "ddim", VPSDE(), {"steps": 4}),
    ("truncation", "heun", FlowSDE(t_min=0.3), {"steps": 80, "prior": "matched"}),
]


@pytest.mark.parametrize(("cause", "sampler", "sde", "given"), PLANTED, ids=lambda v: str(v)[:20])
def test_a_planted_cause_is_named_and_mended(cause, sampler, sde, given):
    found = diagnose(sampler, ExactScore(LAW, sde), **given)
    assert found.causes == (cause,)
    assert found.sentence.startswith(f"{cause.capitalize()} is the cause: ")
    assert {mend.cause for mend in found.mends} == {cause}
    best = found.mends[0]
    assert best.w2 < 0.7 * found.budget.total.w2
    assert f"{best.action} would leave W2 {best.w2:.3g}" in found.sentence


def test_a_network_is_mended_by_a_better_one_and_another_process_means_retraining():
    sde = VPSDE()
    found = diagnose("heun", tilted(LAW, sde), LAW, steps=30)
    assert found.cause == "score"
    (mend,) = found.mends
    assert mend.retrain
    expected = attribute_error("heun", ExactScore(LAW, sde), steps=30).total.w2
    assert mend.w2 == pytest.approx(expected, rel=1e-9)
    assert f"; a perfect network would leave W2 {mend.w2:.3g}." in found.sentence
    assert "retrain" not in str(found)  # a perfect network is named as what it is

    chain = DDPM.linear(100)
    found = diagnose("ddim", tilted(LAW, chain, 0.999), LAW)
    assert found.cause == "initialisation"
    needs = {mend.action for mend in found.mends if mend.retrain}
    assert {"beta_end=0.2", "zero terminal SNR"} <= needs
    assert not {TRUE, "prior='matched'"} & needs
    assert "retraining with beta_end=0.2 " in str(found)
    assert found.sentence.endswith(", retrained networks taken as perfect.")


def test_a_network_in_one_dimension_is_exact():
    model = ScoreModel(MLP(1, width=8, depth=1, seed=0), VPSDE())
    found = diagnose("ddim", model, TWO, steps=5)
    assert found.budget.method == "line"
    assert all(mend.stderr == 0 for mend in found.mends)


def test_two_causes_of_one_size_are_both_named_and_mended_together():
    sde = VPSDE(beta_max=14.0)
    model = ExactScore(LAW, sde)
    found = diagnose("ddim", model, steps=30)
    assert set(found.causes) == {"initialisation", "discretisation"}
    assert "weigh about the same" in found.sentence
    both = attribute_error("ddim", model, steps=60, prior="matched").total.w2
    (together,) = (mend for mend in found.mends if "+" in mend.cause)
    assert together.w2 == pytest.approx(both, rel=1e-9)


def test_a_grid_that_starts_late_is_seen_and_others_are_tried_once():
    chain = DDPM.linear(200, beta_end=0.1)
    found = diagnose("heun", ExactScore(LAW, chain), steps=12, grid="ddpm_leading")
    assert (
        "the grid starts at t = 0.885 and not at 1, where alpha_bar is 0.00031" in found.sentence
    )
    tried = [mend.action for mend in found.mends]
    assert "grid='uniform'" in tried
    assert len(tried) == len(set(tried))


def test_where_nothing_helps_it_says_so(monkeypatch):
    only = ("discretisation", lambda case: iter([("grid='log_snr'", {"grid": "log_snr"})]))
    monkeypatch.setattr(diagnosis, "MENDS", (only,))
    model = ExactScore(Gaussian([0.0, 0.0], 1.0), VPSDE())  # on which that grid is worse
    found = diagnose("ddim", model)
    assert found.mends[0].w2 > found.budget.total.w2
    assert (
        f"what was tried does not help: grid='log_snr' would leave W2 {found.mends[0].w2:.3g}"
        in (found.sentence)
    )
    monkeypatch.setattr(diagnosis, "MENDS", ())
    assert "nothing was found to try" in diagnose("ddim", model).sentence


def more_steps(*numbers):
    """Mends that are finer grids."""

    def propose(case):
        for steps in numbers:
            yield f"{steps} steps", {"steps": steps}

    return (("discretisation", propose),)


def test_a_mend_that_leaves_more_than_95_percent_does_not_help(monkeypatch):
    model = ExactScore(LAW, VPSDE())
    before = diagnose("ddim", model, steps=20).budget.total.w2
    monkeypatch.setattr(diagnosis, "MENDS", more_steps(21))
    (mend,) = (found := diagnose("ddim", model, steps=20)).mends
    assert 0.95 < mend.w2 / before < 0.99
    assert "what was tried does not help: 21 steps would leave W2" in found.sentence
    monkeypatch.setattr(diagnosis, "MENDS", more_steps(22))
    (mend,) = (found := diagnose("ddim", model, steps=20)).mends
    assert 0.85 < mend.w2 / before < 0.95
    assert "are too few (W2" in found.sentence
    assert "help" not in found.sentence
    monkeypatch.setattr(diagnosis, "MENDS", more_steps(21, 22))
    assert "21 steps" not in diagnose("ddim", model, steps=20).sentence


def test_one_step_is_singular():
    assert (
        "1 step of ddim is too few ("
        in diagnose("ddim", ExactScore(LAW, VPSDE()), steps=1).sentence
    )


@pytest.mark.parametrize("method", ["auto", "samples"])
@pytest.mark.parametrize("weights", [[0.3, 0.7], [0.5, 0.5]], ids=str)
def test_the_mode_is_told_by_one_name_in_the_sentence_and_the_picture(weights, method):
    law = GaussianMixture(f64(weights), f64([[-2.0], [1.0]]), f64([0.09, 0.25]))
    model = ExactScore(law, VPSDE(beta_max=2.0))
    found = diagnose("ddim", model, steps=10, method=method, n=2000)
    mode = found.budget.mode
    name = "the large mode" if weights[1] == 0.7 else f"mode {mode + 1} of 2"
    got, truth = float(found.budget.weights[mode]), float(found.budget.truth[mode])
    assert f", and {name} gets {got:.3f} instead of {truth:.3f} (" in found.sentence
    assert f" ({name}: {float(found.mends[0].weights[mode]):.3f})" in found.sentence
    sizes, shifts = waterfall(found.budget).axes
    assert shifts.get_xlabel() == f"weight of {name}"
    labels = [label.get_text() for label in sizes.get_yticklabels()]
    assert labels == [*found.budget.parts, "total"]


DEGENERATE = [
    Gaussian(f64([1.0, -2.0]), 0.0),
    Gaussian(f64([1.0, 2.0]), torch.diag(f64([0.0, 1.0]))),
    Gaussian(f64([0.0]), 0.0),
]


@pytest.mark.parametrize("law", DEGENERATE, ids=str)
@pytest.mark.parametrize("denoise", [False, True])
def test_a_law_without_a_density_is_diagnosed_without_nan(law, denoise):
    found = diagnose("ddim", ExactScore(law, VPSDE()), steps=6, denoise=denoise)
    told = str(found) + json.dumps(found.to_json(), allow_nan=False)
    assert "nan" not in told.lower()
    assert all(math.isfinite(part.w2) for part in found.budget.parts.values())
    assert len(waterfall(found.budget).axes) == 1


def test_a_point_is_met_up_to_rounding():
    found = diagnose("ddim", ExactScore(DEGENERATE[0], VPSDE()), steps=6, denoise=True)
    assert found.budget.total.w2 < 1e-14
    assert found.sentence.startswith("There is no error")
    assert "\n\n\n" not in str(found)


def test_a_small_error_is_called_small_and_none_is_called_none():
    found = diagnose("heun", ExactScore(LAW, VPSDE(beta_max=40.0)), steps=200)
    assert found.budget.total.w2 < 0.01 * math.sqrt(2.52)
    assert "The error is small" in found.sentence
    still = diagnose("euler_maruyama(eta=0)", ExactScore(Gaussian([0.0], 1.0), VPSDE()), steps=5)
    assert still.sentence.startswith("There is no error")


def test_an_error_that_samples_cannot_show_is_not_mended():
    model = ExactScore(Gaussian([0.0, 0.0], 1.0), VPSDE())  # on which the prior is exact
    found = diagnose("heun", model, steps=40, n=500, method="samples")
    assert not found.budget.exact
    assert found.mends == ()
    assert "No error is to be seen with 500 samples" in found.sentence


@pytest.mark.slow
def test_samples_that_show_an_error_have_mends_with_standard_errors():
    model = ExactScore(make("target", "tutorial"), DDPM.linear(60))
    found = diagnose("ancestral", model, method="samples", n=1000, seed=1)
    exact = by_action(diagnose("ancestral", model))
    assert found.cause == "initialisation"
    assert f"(sliced W2 {found.budget.initialisation.w2:.3g} alone" in found.sentence
    assert f"would leave sliced W2 {found.mends[0].w2:.3g}" in found.sentence
    for mend in found.mends:
        assert mend.stderr > 0
        if mend.action in exact:
            noise = 4 * math.hypot(mend.stderr, found.budget.floor)
            assert abs(mend.w2 - exact[mend.action].w2) < noise


def test_the_zero_terminal_table_keeps_its_start_and_loses_its_end():
    chain = DDPM.linear(100)
    case = mends.Case(
        make("sampler", "ddim"), ExactScore(LAW, chain), ExactScore(LAW, chain),
        f64([1.0, 0.0]), 1, "uniform", "standard", False, "gaussian", 100, 0,
    )  # fmt: skip
    changes = [c["sde"] for cause, propose in mends.MENDS for a, c in propose(case)
               if a == "zero terminal SNR"]  # fmt: skip
    (sde,) = changes
    old, new = chain.alphas_bar.sqrt(), sde.alphas_bar.sqrt()
    line = (old - old[-1]) * old[0] / (old[0] - old[-1])  # arXiv:2305.08891, algorithm 1
    assert torch.allclose(new[:-1], line[:-1], rtol=1e-9)
    assert float(new[-1]) < 1e-3


def test_what_would_take_long_is_left_out_and_named(monkeypatch):
    monkeypatch.setattr(diagnosis, "_ROWS", 0)
    seen = []
    found = diagnose(
        "ddim", ExactScore(LAW, VPSDE()), steps=10, callback=lambda *state: seen.append(state)
    )
    assert 0 < len(found.mends) < len(seen)
    assert any("to save time" in why for why in found.not_tried.values())
    assert [done for done, _, _ in seen] == list(range(len(seen)))
    assert {of for _, of, _ in seen} == {len(seen)}


def test_the_numbers_are_valid_json():
    model = ExactScore(
        GaussianMixture(f64([0.5, 0.5]), f64([[-1.0], [1.0]]), f64([1e-4, 1e-4])), VPSDE()
    )
    found = diagnose("ddim", model, steps=5)
    text = json.dumps(found.to_json(), allow_nan=False)
    read = json.loads(text)
    assert read["cause"] == found.cause
    assert [mend["w2"] for mend in read["mends"]] == [mend.w2 for mend in found.mends]
    assert read["sentence"] == found.sentence
