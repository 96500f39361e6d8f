"""Claim: sdekit's samplers are those of other projects to 1e-9, in every state that these stored.

Five files, 413 cases: diffusers, k-diffusion, EDM, the official DPM-Solver and UniPC, azula and
smalldiffusion, on their own levels and noise. The `reference_*` modules beside this one say what
of sdekit's is run for each case, and every difference that is built in; docs/reference-values.md
is the list. Compared are all stored states, each relative to its largest value, the levels or
times of the calls, grids and tables. In 22 cases a formula of the source is put in place of
sdekit's, which is the paper's (`Outcome.adapted`). `MISSING` are not reproduced, and what is
`OUTSIDE` holds draws of noise, losses or a log-likelihood.
"""

from __future__ import annotations

import pytest
from reference_samplers import MODULES, Counts, counts, outcome, outcomes
from sampling_support import EXACT
from support import REPOSITORY, reference_cases

PAGE = REPOSITORY / "docs" / "reference-values.md"
COUNTS = {
    "diffusers_schedulers": Counts(162, 6, 1, 2),
    "kdiffusion_samplers": Counts(59, 0, 2, 3),
    "edm_samplers": Counts(14, 0, 2, 2),
    "dpm_solver_official": Counts(82, 4, 2, 0),
    "azula_samplers": Counts(60, 10, 0, 2),
}
MISSING = {
    "diffusers_schedulers": {"betas/zero_terminal_snr"},
    "kdiffusion_samplers": {"dpm_adaptive/gauss/order3", "dpm_adaptive/gmm2/order2"},
    "edm_samplers": {"ablation_sampler/gauss/3", "ablation_sampler/gmm2/3"},
    "dpm_solver_official": {
        "linear/gauss/dpmsolver++_adaptive_3_0.001_0.01_20",
        "linear/gmm2/dpmsolver_adaptive_3_0.001_0.01_20",
    },
    "azula_samplers": set(),
}
OUTSIDE = ("noise_bank", "loss", "log_likelihood")


CASES = [
    pytest.param(file, *one.values, id=f"{file}-{one.id}", marks=one.marks)
    for file in MODULES
    for one in reference_cases(file)
]


@pytest.mark.parametrize(("file", "about"), CASES)
def test_case(file, about, reference):
    name = about["case"]
    found = outcome(file, name, reference)
    assert found.outside == name.startswith(OUTSIDE)
    assert (found.error is None) == (found.outside or name in MISSING[file])
    if found.error is None:
        assert found.note
    else:
        assert found.error <= EXACT
        assert found.levels is None or found.levels <= EXACT


@pytest.mark.parametrize("file", MODULES)
def test_no_case_is_left_out(file, reference):
    found = outcomes(file, reference)
    assert counts(found) == COUNTS[file]
    assert len(found) == len(reference.load(file).cases)
    assert {n for n, o in found.items() if o.error is None and not o.outside} == MISSING[file]


def test_at_most_five_percent_are_not_reproduced(reference):
    total = [sum(column) for column in zip(*COUNTS.values(), strict=True)]
    assert total[2] <= 0.05 * sum(total[:3])


@pytest.mark.parametrize("file", MODULES)
def test_the_page_lists_every_case(file, reference):
    page = PAGE.read_text(encoding="utf-8")
    for name, found in outcomes(file, reference).items():
        lines = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert any(found.ours.replace("|", r"\|") in line and found.note in line for line in lines)
