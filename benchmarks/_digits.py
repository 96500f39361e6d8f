r"""The digits' splits, the laws fitted to them, and the network in the frame of their Gaussian.

A level k = 0 .. 16 is the cell [-1 + 2 k / 17, -1 + 2 (k + 1) / 17): uniform dequantisation fills
it, a chain with the discretised decoder sees its middle.

References: Karras et al., arXiv:2206.00364, table 1 (preconditioning); Ho et al.,
arXiv:2006.11239, eq. 13 (the decoder).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from sklearn.mixture import GaussianMixture as Fitted
from torch import Tensor, nn

from sdekit import DSM, Gaussian, GaussianMixture, ScoreModel, Trainer, elbo
from sdekit.likelihood import Quantization, VariationalDequantizer, dequantize
from sdekit.model import MLP
from sdekit.targets import Digits
from sdekit.targets._split import split_rows

HOW = Quantization(levels=17)
DIM = 64
SHAPE = (DIM,)
CELL = DIM * math.log(HOW.width)  # log of the volume of a sample's cell
BITS = DIM * math.log(2)
MIDDLES: dict[str, Any] = dict(  # of the cells, for bounds of a chain
    decoder="discretized", levels=17, data_range=(-1 + HOW.width / 2, 1 - HOW.width / 2),
)  # fmt: skip
SHRINKAGE = (0.0, 0.01, 0.02, 0.05, 0.1)
COMPONENTS, FLOORS = (2, 5, 10, 15, 20), (3e-4, 1e-3, 3e-3)
WIDTH, DEPTH, BATCH, LR, DECAY = 512, 3, 256, 1e-3, 0.1
BETA_START = 3e-3  # sigma is 0.055 at the first node; half a cell is 0.059
EVERY = 250  # steps between looks at the validation split


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    steps: int = 4000
    copies: int = 20  # of the training images, dequantised anew, for the two fits by moments
    test: int = 359
    times: int = 256
    draws: int = 2
    nodes: int | None = None  # of the chain: all
    noise_steps: int = 1500
    shown: int = 10


QUICK = Sizes(
    steps=30, copies=2, test=8, times=16, draws=1, nodes=50, noise_steps=4, shown=4
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Whole numbers of the three splits [(n, 64)]."""

    fit: Tensor
    validation: Tensor
    test: Tensor

    @classmethod
    def load(cls, most: int) -> Data:
        """The splits; at most so many test images."""
        train, test = (
            ((Digits(split=split).data + 1) * 8).round().to(torch.int64)
            for split in ("train", "test")
        )
        kept, held = split_rows(len(train), 0.15, 1)
        return cls(train[kept], train[held], test[:most])


class Framed(nn.Module):
    """An MLP in the frame of a Gaussian N(m, Q diag(l) Q'), predicting v of a process of VP kind.

    With z = Q' (x - alpha m), of variances d = alpha^2 l + sigma^2, the Gaussian's own v is
    alpha sigma (1 - l) / d z, and its spread sqrt(l / d):

        v = Q [alpha sigma (1 - l) / d z + sqrt(l / d) MLP(z / sqrt(d), -log_snr / 8)]
            - sigma m.                                                                          (1)

    That is EDM's preconditioning (arXiv:2206.00364, table 1) for each principal axis.
    """

    def __init__(self, mean: Tensor, cov: Tensor, *, seed: int) -> None:
        super().__init__()
        variances, axes = torch.linalg.eigh(cov)
        for name, value in (("mean", mean), ("variances", variances), ("axes", axes)):
            self.register_buffer(name, value.float())
        self.mlp = MLP(DIM, width=WIDTH, depth=DEPTH, bandwidth=0.5, seed=seed)
        for parameter in self.mlp.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """V [(batch, 64)] at x [(batch, 64)] and log-SNR [(batch,)]."""
        alpha2, sigma2 = (torch.sigmoid(sign * log_snr)[:, None] for sign in (1, -1))
        alpha, sigma = alpha2.sqrt(), sigma2.sqrt()
        z = (x - alpha * self.mean) @ self.axes
        total = alpha2 * self.variances + sigma2
        more = (self.variances / total).sqrt() * self.mlp(z / total.sqrt(), -log_snr / 8)
        own = alpha * sigma * (1 - self.variances) / total * z
        return (own + more) @ self.axes.T - sigma * self.mean


@dataclass(frozen=True)
class Batches:
    """Endless batches of rows drawn with replacement, in the middles of cells or with noise."""

    values: Tensor
    seed: int
    noise: VariationalDequantizer | bool | None

    def __iter__(self) -> Iterator[Tensor]:
        source = torch.Generator().manual_seed(self.seed)
        while True:
            rows = self.values[torch.randint(len(self.values), (BATCH,), generator=source)]
            yield placed(rows, self.noise, source)[0]


def placed(
    values: Tensor, noise: VariationalDequantizer | bool | None, source: torch.Generator
) -> tuple[Tensor, Tensor]:
    """float32 samples of the values, and log q: False is no noise, None uniform noise."""
    zero = torch.zeros(len(values), dtype=torch.float64)
    if noise is False:
        return HOW.placed(values, torch.full(values.shape, 0.5)), zero
    if noise is None:
        return dequantize(values, levels=17, generator=source, dtype=torch.float32), zero
    with torch.no_grad():
        return noise(values, generator=source)


def seeded(seed: int) -> torch.Generator:
    """A generator with this seed."""
    return torch.Generator().manual_seed(seed)


def moments(x: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Mean, and covariance shrunk towards its diagonal, float64."""
    x = x.double()
    cov = torch.cov(x.T)
    return x.mean(0), (1 - shrinkage) * cov + shrinkage * torch.diag(cov.diagonal())


def many(values: Tensor, copies: int, seed: int) -> Tensor:
    """Copies of the values, each with its own uniform noise [(copies n, 64)]."""
    x, _ = placed(values.repeat(copies, 1), None, seeded(seed))
    return x.double()


def gaussian(data: Data, sizes: Sizes) -> tuple[Gaussian, dict[str, Any]]:
    """The Gaussian whose shrinkage is best on the validation split."""
    x, held = many(data.fit, sizes.copies, 1), many(data.validation, 1, 2)
    found = {s: Gaussian(*moments(x, s)) for s in SHRINKAGE}
    best = max(found, key=lambda s: float(found[s].log_prob(held).mean()))
    return found[best], {"shrinkage": best}


def mixture(data: Data, sizes: Sizes) -> tuple[GaussianMixture, dict[str, Any]]:
    """The mixture whose components and floor of the variances are best there."""
    x, held = many(data.fit, min(sizes.copies, 5), 1), many(data.validation, 1, 2)
    best, chosen = -math.inf, {}
    for k in COMPONENTS[: 2 if sizes is QUICK else None]:
        for floor in FLOORS:
            fitted = Fitted(k, reg_covar=floor, random_state=0, max_iter=100).fit(x.numpy())
            if (score := float(fitted.score(held.numpy()))) > best:
                best, chosen, kept = score, {"components": k, "floor": floor}, fitted
    means, covs = torch.from_numpy(kept.means_), torch.from_numpy(kept.covariances_)
    weights = torch.from_numpy(kept.weights_)
    return GaussianMixture(weights / weights.sum(), means, covs), chosen


@dataclass
class Stopped:
    """Keeps the averaged weights of the step that is best on the validation split."""

    trainer: Trainer
    x: Tensor
    how: dict[str, Any]
    best: float = math.inf
    step: int = 0
    state: dict[str, Tensor] | None = None

    def __call__(self, step: int, loss: float) -> None:
        """Look, every so many steps."""
        if step % EVERY and self.state is not None:
            return
        model = self.trainer.ema_model
        assert model is not None
        found = elbo(model, self.x, times=64, seed=5, **self.how).mean
        if found < self.best:
            self.best, self.step = found, step
            self.state = {k: v.clone() for k, v in model.state_dict().items()}


def trained(
    sde: Any, data: Data, sizes: Sizes, noise: VariationalDequantizer | bool | None, seed: int
) -> tuple[ScoreModel, dict[str, Any]]:
    """A network trained with this noise, stopped where the validation split's bound is least."""
    x, _ = placed(data.fit.repeat(sizes.copies, 1), noise, seeded(1))
    floor = 0.0 if noise is not False else HOW.width**2 / 12  # a cell's own variance
    mean, cov = moments(x, 0.02)
    network = Framed(mean, cov + floor * torch.eye(DIM), seed=seed)
    model = ScoreModel(network, sde, parametrization="v", time_input="log_snr")
    trainer = Trainer(
        model, DSM(weighting="likelihood", time="importance"), lr=LR, seed=seed,
        optimizer=partial(torch.optim.AdamW, weight_decay=DECAY),
    )  # fmt: skip
    held, _ = placed(data.validation, noise, seeded(2))
    stop = Stopped(trainer, held, MIDDLES if noise is False else {})
    begun = time.perf_counter()
    trainer.fit(Batches(data.fit, seed, noise), steps=sizes.steps, callback=stop)
    best = trainer.ema_model
    assert best is not None
    assert stop.state is not None
    best.load_state_dict(stop.state)
    spent = time.perf_counter() - begun
    bits = (stop.best - (0.0 if noise is False else CELL)) / BITS
    return best, {"stopped at": stop.step, "validation": bits, "seconds": round(spent, 1)}
