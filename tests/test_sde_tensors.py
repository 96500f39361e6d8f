"""Property 17: the dtype follows the time, the shape follows the time, a batch is its samples."""

import math

import pytest
import torch
from strategies import EVERY, every_sde, f64, pairs, smooth_times

from sdekit import VPSDE

SCHEDULES = ["log_alpha", "alpha", "var", "sigma", "log_snr", "f", "g2", "diffusion"]
SHAPES = [(), (1,), (5,), (5, 1), (2, 3, 4), (0,)]


def shaped(sde, shape):
    t = smooth_times(sde, 24).repeat(2)
    return t[: math.prod(shape)].reshape(shape)


@every_sde
def test_shape_and_dtype_follow_the_time(sde):
    for name in SCHEDULES:
        method = getattr(sde, name)
        for shape in SHAPES:
            t = shaped(sde, shape)
            assert (method(t).shape, method(t).dtype) == (t.shape, torch.float64)
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                narrow = t.to(dtype)
                value = method(narrow)
                assert (value.shape, value.dtype) == (t.shape, torch.float32)
                assert torch.equal(value, method(narrow.double().clamp_max(sde.t_max)).float())


@every_sde
def test_a_number_is_a_tensor(sde):
    """C3: a float, a 0-d tensor and an integer mean the same time."""
    at = float(smooth_times(sde)[3])
    for name in SCHEDULES:
        method = getattr(sde, name)
        value = method(at)
        assert (value.shape, value.dtype) == ((), torch.float64)
        assert torch.equal(value, method(f64(at)))
        assert torch.equal(value, method(f64([0.5 * sde.t_max, at]))[1])
        if sde.t_max >= 1 and name not in ("f", "g2", "diffusion"):
            for one in (1, torch.tensor(1), torch.tensor([1], dtype=torch.int32)):
                value = method(one)
                assert torch.equal(value.reshape(()), method(1.0).to(value.dtype))


@every_sde
def test_end_in_every_dtype(sde):
    """C5: t_max itself is a time in any dtype, though float32(0.999) > 0.999."""
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        end = torch.tensor(sde.t_max, dtype=dtype)
        expected = min(float(end), sde.t_max)
        for name in SCHEDULES:
            value = getattr(sde, name)(end)
            assert torch.equal(value, getattr(sde, name)(expected).to(value.dtype))
            assert bool(torch.isfinite(value))


@every_sde
def test_batch_split(sde):
    """Elementwise: any slice of a batch of times has the batch's own values, bitwise."""
    t = smooth_times(sde, 23)
    for name in SCHEDULES:
        method = getattr(sde, name)
        whole = method(t)
        assert torch.equal(whole, torch.cat([method(t[:7]), method(t[7:])]))
        assert torch.equal(whole[5], method(t[5]))
        assert torch.equal(whole.flip(0), method(t.flip(0)))


@every_sde
def test_two_times_broadcast(sde):
    s, t = pairs(sde, 6)
    row, column = s[:3].min().expand(3), t[:4].max().expand(4)[:, None]
    parts = [*sde.transition(row, column), *sde.posterior(row, column)]
    assert {part.shape for part in parts} == {torch.Size([4, 3])}
    parts = [*sde.transition(s[0], t), *sde.posterior(torch.zeros_like(t), t[-1:].expand_as(t))]
    assert all(part.shape == t.shape for part in parts[:2])
    scale, std = sde.transition(s, t)
    for k in (0, len(s) // 2, len(s) - 1):
        assert float(scale[k]) == float(sde.transition(float(s[k]), float(t[k]))[0])
        assert float(std[k]) == float(sde.transition(s=float(s[k]), t=t[k])[1])
    half = [part.dtype for part in sde.transition(s.float(), t.float().clamp_max(sde.t_max))]
    assert half == [torch.float32, torch.float32]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@every_sde
def test_samples_keep_their_dtype(sde, dtype):
    """D1, D8: drift and perturb return the shape and dtype of x, for every allowed shape of t."""
    n = 3
    x = torch.linspace(-1, 1, n * 4, dtype=torch.float64).reshape(n, 2, 2).to(dtype)
    noise = x.flip(0).contiguous()
    at = smooth_times(sde)[:n]
    for t in (at, at.reshape(n, 1, 1), at[:1], at[0], float(at[0]), at.float(), at.half()):
        for out in (sde.drift(x, t), sde.perturb(x, t, noise)):
            assert (out.shape, out.dtype) == (x.shape, dtype)
    per_sample = torch.cat(
        [sde.perturb(x[k : k + 1], at[k : k + 1], noise[k : k + 1]) for k in range(n)]
    )
    assert torch.equal(sde.perturb(x, at, noise), per_sample)
    per_sample = torch.cat([sde.drift(x[k : k + 1], float(at[k])) for k in range(n)])
    assert torch.equal(sde.drift(x, at), per_sample)


@pytest.mark.parametrize("key", ["vp-0", "ve-0", "ddpm-1", "two_lambdas"])
def test_layouts_do_not_matter(key):
    """D10: strides, expansion, memory format, subclasses and gradients leave the values alone."""
    sde = EVERY[key]
    t = smooth_times(sde)[5]
    plain = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(2, 3, 2, 2)
    expected = sde.drift(plain, t)
    strided = plain.transpose(1, 3).contiguous().transpose(1, 3)
    channels = plain.contiguous(memory_format=torch.channels_last)
    for x in (
        strided,
        channels,
        torch.nn.Parameter(plain.clone()),
        plain.clone().requires_grad_(),
    ):
        before = x.detach().clone()
        assert torch.equal(sde.drift(x, t), expected)
        assert torch.equal(sde.perturb(x, t, torch.zeros_like(x)), sde.alpha(t) * plain)
        assert torch.equal(x.detach(), before)
    wide = plain[:1].expand(4, 3, 2, 2)
    assert torch.equal(sde.drift(wide, t), expected[:1].expand(4, 3, 2, 2))
    times = t.expand(4)
    assert torch.equal(sde.drift(wide, times), sde.drift(wide, times.contiguous()))
    assert torch.equal(sde.sigma(times), sde.sigma(t).expand(4))


def test_large_and_small_batches():
    """D5: one sample, one dimension, a million dimensions, no sample."""
    sde = EVERY["vp-0"]
    for shape in [(1, 1), (1, 1_000_000), (3,), (0, 2)]:
        x = torch.ones(shape)
        t = torch.full(shape[:1], 0.5)
        assert sde.perturb(x, t, x).shape == shape
        assert sde.drift(x, t).shape == shape


def test_the_callers_time_is_left_alone():
    """No mark, no change, no gradient lost on the tensor that was passed in."""
    sde = EVERY["vp-0"]
    t = torch.linspace(0.1, 0.9, 4, dtype=torch.float64)
    before = t.clone()
    for name in SCHEDULES:
        getattr(sde, name)(t)
    assert torch.equal(t, before)
    assert not vars(t)
    assert not t.requires_grad


@every_sde
def test_device_follows_the_time(sde):
    """Tables and quadrature rules go where the times are; meta stands for another device."""
    for shape in [(), (3,), (2, 2)]:
        t = torch.full(shape, 0.5, dtype=torch.float64, device="meta")
        values = [getattr(sde, name)(t) for name in SCHEDULES]
        values += [*sde.transition(t, t), *sde.posterior(t, t)]
        assert {(value.device.type, value.shape) for value in values} == {("meta", t.shape)}


def test_a_time_with_gradient_where_gradients_are_off():
    """The derived coefficients are values there, not an error."""
    t = torch.full((1,), 0.5, dtype=torch.float64, requires_grad=True)
    expected = VPSDE().g2(0.5)
    with torch.no_grad():
        assert torch.equal(VPSDE().g2(t)[0], expected)
