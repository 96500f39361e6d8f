"""Claim: what is saved is what is loaded, bitwise, and what is loaded is ready to use."""

import copy
import os
import stat

import pytest
import torch

from sdekit import DDPM, VPSDE, LinearSDE, ScoreModel, catalogue, load_checkpoint, save_checkpoint
from sdekit.errors import CheckpointError, DtypeError
from sdekit.model import MLP

SDES = [sde for entry in catalogue("sde").values() for sde in entry.examples()]
PARAMETRISATIONS = [p for entry in catalogue("parametrization").values() for p in entry.examples()]


def small(sde=None, **kwargs):
    return ScoreModel(MLP(2, width=8, depth=1, seed=4), sde or VPSDE(), **kwargs)


def same(a, b):
    first, second = a.state_dict(), b.state_dict()
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_every_sde(tmp_path, sde):
    """By its spelling, or by its table where a chain was given one."""
    path = save_checkpoint(tmp_path / "a.safetensors", small(sde), step=3)
    found = load_checkpoint(path)
    assert found.model.sde == sde
    assert found.step == 3
    assert same(found.model, small(sde))


@pytest.mark.parametrize("parametrization", PARAMETRISATIONS, ids=repr)
def test_every_parametrisation(tmp_path, parametrization):
    model = small(parametrization=parametrization, time_input="log_snr")
    found = load_checkpoint(save_checkpoint(tmp_path / "a", model)).model
    assert found.parametrization == parametrization
    assert found.time_input == "log_snr"
    x = torch.ones(3, 2)
    assert torch.equal(found(x, 0.3).raw, model(x, 0.3).raw)
    assert not found.training


@pytest.mark.parametrize("entry", catalogue("network").values(), ids=lambda entry: entry.name)
def test_every_network(tmp_path, entry):
    for network in entry.examples():
        model = ScoreModel(network, VPSDE())
        found = load_checkpoint(save_checkpoint(tmp_path / entry.name, model))
        assert found.config["network"]["name"] == entry.name
        assert same(found.model, model)


def test_the_average_is_what_is_used(tmp_path):
    model, ema = small(), small()
    with torch.no_grad():
        for p in ema.parameters():
            p.mul_(2)
    found = load_checkpoint(save_checkpoint(tmp_path / "a", model, ema=ema))
    assert same(found.model, ema)
    assert same(found.raw_model(), model)
    found = load_checkpoint(save_checkpoint(tmp_path / "b", model))
    assert found.ema_weights is None
    assert same(found.model, model)


def test_models_of_one_checkpoint_are_independent(tmp_path):
    found = load_checkpoint(save_checkpoint(tmp_path / "a", small()))
    first, second = found.model, found.raw_model()
    with torch.no_grad():
        next(first.parameters()).zero_()
    assert same(second, small())
    assert same(found.model, small())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(tmp_path, dtype):
    model = small().to(dtype)
    found = load_checkpoint(save_checkpoint(tmp_path / "a", model)).model
    assert {p.dtype for p in found.parameters()} == {dtype}
    assert same(found, model)


class Odd(torch.nn.Module):
    """Tied weights, a scalar, an integer, an empty tensor, a transposed one."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(2, 2, generator=generator))
        self.tied = self.weight
        self.turned = torch.nn.Parameter(torch.randn(3, 4, generator=generator).T)
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("none", torch.empty(0, 3))
        self.scale = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x, time):
        return x @ self.weight * self.scale


def test_a_network_of_ones_own(tmp_path):
    model = ScoreModel(Odd(), VPSDE())
    path = save_checkpoint(tmp_path / "a", model)
    with pytest.raises(
        CheckpointError, match=r"Odd is not in the catalogue; pass network="
    ) as caught:
        load_checkpoint(path)
    assert caught.value.kind == "incompatible"
    given = Odd()
    with torch.no_grad():
        given.weight.zero_()
    found = load_checkpoint(path, network=given).model
    assert same(found, model)
    assert found.network.tied is found.network.weight
    assert float(given.weight.detach().abs().max()) == 0  # the argument is copied


def test_parts_without_a_spelling(tmp_path):
    """An SDE from two lambdas, a time input of one's own: the model has to be given."""
    sde = LinearSDE.from_coefficients(lambda t: -t, lambda t: 2 * t + 1)
    model = ScoreModel(MLP(2, width=8, depth=1, seed=4), sde, time_input=lambda sde, t: 2 * t)
    path = save_checkpoint(tmp_path / "a", model)
    with pytest.raises(CheckpointError, match="pass model=") as caught:
        load_checkpoint(path)
    assert caught.value.kind == "incompatible"
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).zero_()
    assert same(load_checkpoint(path, model=other).model, model)
    with pytest.raises(CheckpointError, match="sde"):
        load_checkpoint(path, model=small())


def test_another_table_of_betas_is_noticed(tmp_path):
    path = save_checkpoint(tmp_path / "a", small(DDPM([0.1, 0.2])))
    with pytest.raises(CheckpointError, match="another table"):
        load_checkpoint(path, model=small(DDPM([0.1, 0.3])))


def test_training_state(tmp_path):
    model = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    generator = torch.Generator().manual_seed(5)
    torch.rand(3, generator=generator)
    path = save_checkpoint(
        tmp_path / "a",
        model,
        optimizer=optimizer,
        generators={"mine": generator},
        state={"k": [1, None]},
    )
    following = torch.rand(3, generator=generator)
    state = load_checkpoint(path).state
    again = torch.optim.AdamW(small().parameters(), lr=0.5)
    again.load_state_dict(state["optimizer"])
    assert again.param_groups[0]["lr"] == 0.1
    assert again.param_groups[0]["betas"] == (0.9, 0.999)
    for mine, theirs in zip(optimizer.state.values(), again.state.values(), strict=True):
        assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    resumed = torch.Generator()
    resumed.set_state(state["generators"]["mine"])
    assert torch.equal(torch.rand(3, generator=resumed), following)
    assert state["k"] == [1, None]


def test_a_second_round_trip_is_bitwise(tmp_path):
    first = save_checkpoint(tmp_path / "a", small(), step=1)
    second = save_checkpoint(tmp_path / "b", load_checkpoint(first).raw_model(), step=1)
    assert first.read_bytes() == second.read_bytes()


def test_the_newest_is_by_step_and_not_by_name_or_time(tmp_path):
    for step in (10, 9, 100, 2):
        save_checkpoint(tmp_path, small(), step=step)
    (tmp_path / "step-11.safetensors").write_bytes(
        (tmp_path / "step-00000009.safetensors").read_bytes()
    )
    for name in (
        "step-999",
        "step-abc.safetensors",
        ".step-500.safetensors.h.1.0a1b2c3d.sdekit-tmp",
    ):
        (tmp_path / name).write_bytes(b"not a checkpoint")
    os.utime(tmp_path / "step-00000002.safetensors")
    assert load_checkpoint(tmp_path).step == 100


def test_the_mode_is_the_users(tmp_path):
    before = os.umask(0o027)
    try:
        path = save_checkpoint(tmp_path / "a", small())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_only_score_models_are_saved(tmp_path):
    with pytest.raises(DtypeError, match="ScoreModel"):
        save_checkpoint(tmp_path / "a", MLP(2))
    assert not list(tmp_path.iterdir())
