"""Claim: batches depend on the seed and the step alone, every row is used, bad data is named."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from sdekit import VPSDE, Gaussian, ScoreModel, Trainer
from sdekit.errors import DataError, DtypeError
from sdekit.model import MLP
from sdekit.training.data import source

ROWS = torch.arange(10.0)[:, None]


def stream(data, batch_size, steps, seed=0):
    batches = source(data, batch_size=batch_size, seed=seed)
    blocks = -(-steps // batches.block)
    return torch.cat([batches.rows(j) for j in range(blocks)])[: steps * batch_size]


@pytest.mark.parametrize("batch_size", [1, 3, 10])
@pytest.mark.parametrize("n", [10, 11, 1000, 40_000])
def test_every_row_comes_up_as_often_as_any_other(n, batch_size):
    """Over whole passes, whatever the blocks are in which they are drawn."""
    data = torch.arange(float(n))[:, None]
    rows = 3 * source(data, batch_size=batch_size, seed=0)._epoch
    seen = stream(data, batch_size, rows // batch_size + 1)
    counts = torch.bincount(seen[:rows].flatten().long(), minlength=n)
    assert int(counts.max()) == int(counts.min()) == rows // n
    assert not torch.equal(seen[:10], data[:10])


def test_the_order_is_the_seeds():
    assert torch.equal(stream(ROWS, 3, 100), stream(ROWS, 3, 100))
    assert not torch.equal(stream(ROWS, 3, 100), stream(ROWS, 3, 100, seed=1))
    law = Gaussian([0.0], 1.0)
    assert torch.equal(stream(law, 3, 100), stream(law, 3, 100))
    assert not torch.equal(stream(law, 3, 100), stream(law, 3, 100, seed=1))


def test_targets_are_fresh_at_every_step():
    seen = stream(Gaussian([0.0], 1.0), 8, 200)
    assert len(seen.unique()) == len(seen)


def fit(data, steps=3, **kwargs):
    model = ScoreModel(MLP(1, width=4, depth=1), VPSDE())
    return Trainer(model, **kwargs).fit(data, steps=steps)


def test_iterables_begin_anew_when_they_end():
    assert len(fit(DataLoader(ROWS, batch_size=5), steps=7).losses) == 7
    assert len(fit([ROWS, ROWS[:3]], steps=5).losses) == 5


class Items(Dataset):
    def __init__(self, item):
        self.item = item

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return self.item(i)


def broken(i):
    raise KeyError("the file is gone")


class Nothing(IterableDataset):
    def __iter__(self):
        return iter(())


INF = torch.cat([ROWS, torch.tensor([[float("inf")]])])


@pytest.mark.parametrize(
    ("data", "kwargs", "words"),
    [
        (torch.zeros(0, 2), {}, ["0 batches"]),
        (ROWS, {"batch_size": 11}, ["0 batches", "11"]),
        (DataLoader(ROWS, batch_size=20, drop_last=True), {}, ["0 batches"]),
        (DataLoader(Nothing()), {}, ["0 batches"]),
        ([], {}, ["0 batches"]),
        (iter([ROWS]), {}, ["1 batches"]),
        (INF, {}, ["NaN or infinity", "[10]"]),
        ([ROWS, INF], {}, ["batch 1", "[10]"]),
        ([ROWS[:0]], {}, ["batch 0", "empty"]),
        ([ROWS, torch.zeros(3, 2)], {}, ["batch 1", "(2,)", "(1,)"]),
        ([ROWS.int()], {}, ["int32"]),
        (DataLoader(TensorDataset(ROWS)), {}, ["list of Tensor"]),
        (DataLoader(Items(lambda i: {"x": ROWS[i]})), {}, ["dict of Tensor"]),
        (DataLoader(Items(lambda i: torch.zeros(i + 1)), batch_size=2), {}, ["reading batch 0"]),
        (DataLoader(Items(broken)), {}, ["reading batch 0", "the file is gone"]),
        (DataLoader(Items(lambda i: object())), {}, ["reading batch 0"]),
    ],
    ids=range(16),
)
def test_bad_data(data, kwargs, words):
    with pytest.raises(DataError) as caught:
        fit(data, **kwargs)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("data", [np.zeros((4, 1)), "moons", {"x": ROWS}, None, ROWS.int()])
def test_data_of_the_wrong_type(data):
    with pytest.raises(DtypeError, match="data must be"):
        fit(data)


def test_an_error_of_the_dataset_is_chained():
    with pytest.raises(DataError) as caught:
        fit(DataLoader(Items(broken)))
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_worker_process_that_fails():
    with pytest.raises(DataError, match="the file is gone"):
        fit(DataLoader(Items(broken), num_workers=1, multiprocessing_context="fork"))


@pytest.mark.parametrize("data", [torch.full((20, 1), 2.0), torch.ones(1, 1)])
def test_constant_data_is_trained_on_with_a_warning(data):
    with pytest.warns(UserWarning, match="the same"):
        result = fit(data)
    assert bool(result.losses.isfinite().all())


def test_data_is_checked_before_the_first_step():
    model = ScoreModel(MLP(1, width=4, depth=1), VPSDE())
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(DataError):
        Trainer(model).fit(INF, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
