"""Claim: a folder of a diffusers pipeline is the model that diffusers makes of it.

The network's calls are compared with the U-Net's own, the chain with the scheduler's betas, and a
whole run with one that diffusers' DDIM scheduler drives.
"""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from compare_tools import small

from sdekit import sample
from sdekit.compare import run
from sdekit.compare.store import load
from sdekit.errors import CheckpointError
from sdekit.model.pipelines import from_pipeline, is_pipeline

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")


def saved(folder, **scheduler):
    """A tiny untrained pipeline, saved as diffusers saves it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = diffusers.UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, layers_per_block=1,
            block_out_channels=(8, 8), norm_num_groups=4,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        )  # fmt: skip
    chain = diffusers.DDPMScheduler(num_train_timesteps=100, **scheduler)
    diffusers.DDPMPipeline(unet, chain).save_pretrained(folder)
    return unet.eval(), chain


@pytest.mark.parametrize(
    "scheduler",
    [{}, {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
     {"beta_schedule": "scaled_linear", "prediction_type": "sample"},
     {"trained_betas": np.linspace(1e-3, 0.05, 100).tolist()}],
)  # fmt: skip
def test_calls_and_chain_are_those_of_diffusers(tmp_path, scheduler):
    unet, chain = saved(tmp_path, **scheduler)
    assert is_pipeline(tmp_path)
    model, shape = from_pipeline(tmp_path)
    assert shape == (1, 8, 8)
    betas = chain.betas.double()
    assert torch.allclose(model.sde.betas, betas, rtol=2e-5, atol=1e-8)  # theirs are float32
    x = torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8)
    for i in (1, 37, 100):
        with torch.no_grad():
            raw = unet(x, i - 1).sample
            seen = model(x, model.sde.time(i))
        a, b = chain.alphas_cumprod[i - 1].sqrt(), (1 - chain.alphas_cumprod[i - 1]).sqrt()
        x0 = {"epsilon": (x - b * raw) / a, "sample": raw, "v_prediction": a * x - b * raw}[
            chain.config.prediction_type
        ]
        assert torch.allclose(seen.x0, x0, rtol=1e-3, atol=1e-4)


def test_a_run_is_that_of_diffusers(tmp_path):
    unet, _ = saved(tmp_path, clip_sample=False)
    model, _ = from_pipeline(tmp_path)
    start = torch.linspace(-2, 2, 64).reshape(1, 1, 8, 8)
    theirs = diffusers.DDIMScheduler(num_train_timesteps=100, clip_sample=False,
                                     timestep_spacing="trailing")  # fmt: skip
    theirs.set_timesteps(10)
    x = start
    with torch.no_grad():
        for t in theirs.timesteps:
            x = theirs.step(unet(x, t).sample, t, x, eta=0.0).prev_sample
    # theirs ends at node 1, with alpha_bar of the first step, ours at the data
    ours = sample(model, (1, 1, 8, 8), sampler="ddim", grid="ddpm_trailing", steps=10,
                  x_init=start).x  # fmt: skip
    assert torch.allclose(ours, x, rtol=1e-3, atol=2e-3 * float(x.abs().max()))


def test_a_pipeline_is_compared_with_images_of_a_file(tmp_path):
    saved(tmp_path / "pipeline")
    images = np.linspace(-1, 1, 200 * 64, dtype=np.float32).reshape(200, 1, 8, 8)
    np.save(tmp_path / "images.npy", images)
    e = small(target=(), samplers=["ddim"], steps=[2], n=40, metrics=["sliced_wasserstein"],
              checkpoints={"path": str(tmp_path / "pipeline"),
                           "data": str(tmp_path / "images.npy")})  # fmt: skip
    (row,) = run(e, out=tmp_path / "out", workers=0)
    assert (row["status"], row["score"]) == ("ok", "network")
    assert row["floor"] < row["value"]
    assert row["data"].endswith("images.npy")
    (stored,) = load(tmp_path / "out").cells
    (truth,) = load(tmp_path / "out").truth.values()
    assert stored["picture"]["image"] == truth["image"] == [8, 8, 1]
    assert (stored["picture"]["count"], truth["count"]) == (16, 16)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("model_index.json", {"unet": ["os", "system"]}, "system"),
        ("scheduler/scheduler_config.json", {"prediction_type": "noise"}, "noise"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "mine"}, "mine"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "zero_snr"),
        ("scheduler/scheduler_config.json", {"beta_start": 2.0}, "beta"),
    ],
)
def test_what_cannot_be_sampled_from_is_refused(tmp_path, file, change, says):
    saved(tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises((CheckpointError, ValueError), match=says):
        from_pipeline(tmp_path)


def test_nothing_in_the_folder_is_executed(tmp_path):
    """Weights as a pickle are refused unread, whatever they are called."""

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    saved(tmp_path / "p")
    weights = next((tmp_path / "p" / "unet").glob("*.safetensors"))
    for name in ("diffusion_pytorch_model.bin", weights.name):
        for old in (tmp_path / "p" / "unet").glob("diffusion_pytorch_model*"):
            old.unlink()
        (tmp_path / "p" / "unet" / name).write_bytes(pickle.dumps(Payload()))
        with pytest.raises(CheckpointError):
            from_pipeline(tmp_path / "p")
    assert not (tmp_path / "ran").exists()
