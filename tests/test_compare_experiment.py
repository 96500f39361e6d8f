"""Claim: an experiment is a value: TOML and back is the identity, and what is wrong is refused."""

from __future__ import annotations

import pytest
import torch
from compare_tools import SMALL, small

from sdekit import VPSDE, Gaussian, GaussianMixture
from sdekit.compare import Experiment
from sdekit.compare.experiment import read_file
from sdekit.errors import ConfigError, DtypeError, SdekitError
from sdekit.sampling import Heun


def test_toml_and_back_is_the_same_experiment():
    for e in (
        small(),
        small(steps=(), calls=[7, 9], denoise=True, prior="matched", seeds=[5, 3]),
        small(name='say "hi" \\ \n \x1b]0; \u2028 <script>', grids=["log_snr", "karras(rho=5.0)"]),
        small(checkpoints=["runs/a", {"path": "b c", "data": "x.npy"},
                           {"path": "d", "target": "moons"}]),
    ):  # fmt: skip
        again = Experiment.from_toml(e.to_toml())
        assert again == e
        assert [c.id for c in again.cells] == [c.id for c in e.cells]
        assert again.to_toml() == e.to_toml()


def test_objects_and_spellings_are_the_same():
    e = small(sdes=[VPSDE(beta_max=10)], samplers=[Heun(churn=2.0)], target=Gaussian([1.0], 2.0))
    assert e == small(sdes="vp(beta_max=10.0)", samplers=["heun(churn=2)"],
                      target="gaussian(mean=[1.0], cov=2.0)")  # fmt: skip


def test_a_single_value_is_a_list_of_one():
    assert small(sdes="vp", steps=4, seeds=1).seeds == (0,)
    assert small(seeds=3) == small(seeds=[0, 1, 2])


def test_every_combination_is_a_cell_once():
    e = small(grids=["uniform", "log_snr"])
    assert len({c.id for c in e.cells}) == len(e.cells) == 2 * 2 * 2 * 2


def test_who_chooses_its_own_steps_has_one_cell():
    e = small(samplers=["ddim", "adaptive_sde"], grids=["uniform", "log_snr"], sdes="vp")
    own = [c for c in e.cells if c.sampler.startswith("adaptive")]
    assert len(own) == 1
    assert own[0].steps is None
    assert own[0].calls is None


def test_adding_and_reordering_leave_the_other_cells_alone():
    names = {c.id for c in small().cells}
    more = small(samplers=["heun", "ancestral", "ddim"], steps=[5, 3], sdes=["ddpm(n=20)", "vp"])
    assert names < {c.id for c in more.cells}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"samplers": "dim"}, "ddim"),
        ({"sdes": "vpp"}, "vp"),
        ({"metrics": "sliced"}, "sliced_wasserstein"),
        ({"grids": "uniforn"}, "uniform"),
        ({"target": "tutorail"}, "tutorial"),
        ({"target": ()}, "neither"),
        ({"calls": 3}, "both"),
        ({"steps": ()}, "neither"),
        ({"steps": 0}, "steps[0]"),
        ({"steps": [5, -1]}, "steps[1]"),
        ({"steps": [5, 5]}, "twice"),
        ({"samplers": ["ddim", "ddim(eta=0.0)"]}, "twice"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [-1]}, "seeds[0]"),
        ({"n": 1}, "n must be"),
        ({"n": 10**11}, "n must be"),
        ({"prior": "mached"}, "matched"),
        ({"steps": range(1, 60_000)}, "at most"),
    ],
)
def test_a_value_that_is_wrong_is_named(change, says):
    with pytest.raises(ConfigError) as error:
        small(**change)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "change",
    [{"steps": 2.5}, {"steps": "10"}, {"steps": True}, {"n": 2.0}, {"denoise": 1}, {"name": 3},
     {"target": "moons"}, {"target": 5}, {"samplers": {"ddim"}}, {"seeds": 1.5},
     {"checkpoints": [3]}, {"prior": None}],
)  # fmt: skip
def test_a_value_of_another_type_is_a_dtype_error(change):
    with pytest.raises(DtypeError):
        small(**change)


def test_a_law_without_a_spelling_is_refused_with_what_would_do():
    big = GaussianMixture(torch.full((90,), 1 / 90), torch.arange(180.0).reshape(90, 2), 1.0)
    with pytest.raises(ConfigError, match="register"):
        small(target=big)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ("target = tutorial\nsteps = 4", "line 1"),
        ('target = "tutorial"\nsteps = 4\nsteps = 5\n', "line 3"),
        ('target = "tutorial"\nstep = 4', "line 2"),
        ('target = "tutorial"\nstep = 4', "steps"),
        ('target = "tutorial"\nsteps = "1e3"', "steps"),
        ('target = "tutorial"\nsteps = 010', "line 2"),
        ('target = "tutorial"\nsteps = yes', "line 2"),
        ('target = "tutorial"\nsteps = nan', "steps"),
        ('target = "tutorial"\nsteps = 4\nn = inf', "n"),
        ("steps = " + "[" * 90_000, "line 1"),
        ("steps = " + "[" * 100_000, "characters"),
        ("a" * 200_000, "characters"),
        ("&a [*a, *a]", "line 1"),
        ('target = "tutorial"\nsteps = 4\n[checkpoints]\nx = 1', "checkpoints"),
    ],
)
def test_a_text_that_is_no_experiment_is_refused(text, says):
    with pytest.raises(SdekitError) as error:
        Experiment.from_toml(text)
    assert says in str(error.value)


def test_a_byte_order_mark_and_tabs_are_no_fault(tmp_path):
    path = tmp_path / "e.toml"
    path.write_bytes(b'\xef\xbb\xbftarget\t=\t"tutorial"\r\nsteps = [3]\r\n')
    assert read_file(path).steps == (3,)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        read_file(tmp_path / "nothing.toml")


def test_a_misspelt_field_names_the_nearest():
    with pytest.raises(TypeError, match="samplers"):
        Experiment(**SMALL, sampler="ddim")


@pytest.mark.parametrize("name", ["samplers", "grids", "metrics", "sdes"])
def test_an_empty_list_compares_nothing_and_is_named(name):
    with pytest.raises(ConfigError, match=name):
        Experiment(target="tutorial", steps=3, **{name: []})
