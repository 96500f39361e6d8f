"""Claim: a damaged, foreign or hostile file is refused with its kind, and nothing in it runs."""

import io
import json
import pickle
import random
import resource
import struct
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from sdekit import DDPM, VPSDE, ScoreModel, load_checkpoint, save_checkpoint
from sdekit.errors import CheckpointError
from sdekit.model import MLP
from sdekit.training import format as layout


def small():
    return ScoreModel(MLP(2, width=4, depth=1), VPSDE())


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    model = small()
    optimizer = torch.optim.AdamW(model.parameters())
    return save_checkpoint(folder / "a", model, ema=model, optimizer=optimizer).read_bytes()


def kind(path, data):
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    return caught.value.kind


def test_the_whole_file_loads(tmp_path, good):
    (tmp_path / "a").write_bytes(good)
    assert load_checkpoint(tmp_path / "a").step == 0


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_flipped_bit_is_found(tmp_path, good):
    """Every bit of the first 160 bytes and of the digest's surroundings, 100 others anywhere."""
    place = good.index(b"sha256") * 8
    bits = [*range(160 * 8), *range(place - 40, place + 80 * 8, 3)]
    bits += random.Random(0).sample(range(len(good) * 8), 100)
    for bit in bits:
        assert kind(tmp_path / "a", flipped(good, bit)) == "corrupt", bit


@pytest.mark.slow
def test_any_flipped_bit_is_found(tmp_path, good):
    for bit in range(len(good) * 8):
        assert kind(tmp_path / "a", flipped(good, bit)) == "corrupt", bit


def test_truncation(tmp_path, good):
    lengths = {len(good) * percent // 100 for percent in range(100)}
    for length in [*range(12), *sorted(lengths), len(good) - 1]:
        assert kind(tmp_path / "a", good[:length]) == "corrupt", length


def test_trailing_bytes(tmp_path, good):
    assert kind(tmp_path / "a", good + b"\0") == "corrupt"
    assert kind(tmp_path / "a", good + good) == "corrupt"


# what could execute -----------------------------------------------------------------------


class Bomb:
    """Pickles to a call that leaves a mark."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (open, (self.mark, "w"))


def payloads(mark):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"pickle{protocol}", pickle.dumps(Bomb(mark), protocol)
    for new in (True, False):
        buffer = io.BytesIO()
        torch.save({"a": Bomb(mark)}, buffer, _use_new_zipfile_serialization=new)
        yield f"torch{new}", buffer.getvalue()
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([Bomb(mark)], dtype=object))
    yield "npz", buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    yield "npy", buffer.getvalue()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escape", b"\0" * 10_000_000)
    yield "zip bomb", buffer.getvalue()


@pytest.mark.parametrize("name", ["a.pt", "a.pkl", "step-00000001.safetensors", "a.json", "a.npz"])
def test_pickles_and_archives_are_never_opened(tmp_path, name):
    mark = tmp_path / "mark"
    for what, data in payloads(mark):
        assert kind(tmp_path / name, data) == "unsafe", what
        assert not mark.exists(), what
    if name.startswith("step"):
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(tmp_path)
        assert caught.value.kind == "unsafe"


# headers that lie -------------------------------------------------------------------------


def file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape, begin, end):
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


HEADERS = {
    "length 2^60": struct.pack("<Q", 2**60) + b"{}",
    "length 2^64 - 1": struct.pack("<Q", 2**64 - 1) + b"{}",
    "shape 2^40": file({"a": entry([2**40], 0, 4)}, b"\0" * 4),
    "shape overflow": file({"a": entry([2**33, 2**33], 0, 4)}, b"\0" * 4),
    "negative": file({"a": entry([-1, -1], 0, 4)}, b"\0" * 4),
    "trailing": file({"a": entry([1], 0, 4)}, b"\0" * 9),
    "overlap": file({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, b"\0" * 12),
    "gap": file({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"\0" * 12),
    "beyond the end": file({"a": entry([100], 0, 400)}, b"\0" * 4),
    "duplicate keys": file(
        b'{"a":%s,"a":%s}' % ((json.dumps(entry([1], 0, 4)).encode(),) * 2), b"\0" * 4
    ),
    "zero-size alias": file({"a": entry([1], 0, 4), "b": entry([0], 2, 2)}, b"\0" * 4),
    "deep": file(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "huge number": file(b'{"a":' + b"9" * 100_000 + b"}"),
    "a list": struct.pack("<Q", 4) + b"{[]}",
    "infinity": file(b'{"a":Infinity}'),
    "not utf-8": file(b'{"\xff":1}'),
    "metadata of numbers": file({"__metadata__": {"sdekit": 3}}),
    "metadata is a list": file({"__metadata__": []}),
    "an entry is null": file({"a": None}),
    "no bytes": file({"a": entry([1], 0, 0)}),
    "no shape": file({"a": {"dtype": "F32"}}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie(tmp_path, name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert kind(tmp_path / "a", HEADERS[name]) == "corrupt"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_a_large_header_takes_bounded_memory(tmp_path):
    data = file(b'{"a":"' + b"x" * 40_000_000 + b'"}')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert kind(tmp_path / "a", data) == "corrupt"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # the file itself


def test_other_files(tmp_path):
    foreign = safetensors.torch.save({"a": torch.zeros(3)}, {"format": "pt"})
    assert kind(tmp_path / "a", foreign) == "incompatible"
    for data in (b"", b"\0" * 100, b"hello", b"# a text\n" * 50, bytes(range(256)) * 9):
        assert kind(tmp_path / "a", data) == "corrupt", data[:20]


# a right digest over content that does not fit --------------------------------------------


def resigned(tmp_path, change):
    """A checkpoint with a valid digest, changed before it was signed."""
    path = save_checkpoint(tmp_path / "x", small(), step=1)
    tensors, meta = layout.decode(path.read_bytes(), "x")
    change(tensors, meta)
    return layout.encode(tensors, meta)


def rename(tensors, meta):
    tensors["model/network.layers.0.wieght"] = tensors.pop("model/network.layers.0.weight")
    tensors["model/network.layers.2.bias"] = torch.zeros(3)


def put(*path, value):
    def change(tensors, meta):
        for key in path[:-1]:
            meta = meta[key]
        meta[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("config", "sde", value="os.system"), ["os.system", "vp"]),
        (put("config", "sde", value="__import__('os').system('touch mark')"), ["__import__"]),
        (put("config", "sde", value="vp(beta_mim=3.0)"), ["beta_mim", "beta_min"]),
        (put("config", "sde", value="vp(beta_min=-3.0)"), ["beta_min", "-3"]),
        (put("config", "parametrization", value="epsilon"), ["epsilon", "eps"]),
        (put("config", "time_input", value="os.getcwd"), ["os.getcwd"]),
        (put("config", "network", value={"name": "unet2", "config": {}}), ["unet2"]),
        (put("config", "network", "config", value={"dim": 2, "wdth": 3}), ["wdth"]),
        (put("config", "network", "config", value={"dim": 3}), ["layers.0.weight", "shape"]),
        # sizes that would take all memory, or hours, before they are compared with the weights
        (put("config", "network", "config", "width", value=10**12), ["layers.0.weight", "shape"]),
        (put("config", "network", "config", "dim", value=10**12), ["layers.0.weight", "shape"]),
        (put("config", "network", "config", "frequencies", value=10**15), ["network.w", "shape"]),
        (put("config", "network", "config", "depth", value=10**12), ["missing network.layers"]),
        (put("config", "sde", value="ddpm(n=1000000000)"), ["n must be", "1000000"]),
        (rename, ["missing network.layers.0.weight", "unexpected network.layers.0.wieght",
                  "layers.2.bias has shape (3,)"]),
        (lambda tensors, meta: tensors.pop("model/network.w"), ["missing network.w"]),
        (lambda tensors, meta: tensors.update({"model/network.x": torch.ones(2)}), ["network.x"]),
    ],
)  # fmt: skip
def test_content_that_does_not_fit(tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_bytes(resigned(tmp_path, change))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "a")
    assert caught.value.kind == "incompatible"
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "mark").exists()


def test_an_unknown_name_imports_nothing(tmp_path):
    import sys

    (tmp_path / "a").write_bytes(resigned(tmp_path, put("config", "sde", value="antigravity")))
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "a")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("name", ["step", "config", "optimizer", "has_ema", "state"])
def test_content_that_lacks_something(tmp_path, name):
    def change(tensors, meta):
        del meta[name]

    assert kind(tmp_path / "a", resigned(tmp_path, change)) == "corrupt"


def test_a_newer_version(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "FORMAT", layout.FORMAT + 1)
    path = save_checkpoint(tmp_path / "a", small())
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=f"version {layout.FORMAT + 1}") as caught:
        load_checkpoint(path)
    assert caught.value.kind == "version"


def test_weights_that_are_not_finite(tmp_path):
    model = small()
    with torch.no_grad():
        model.network.layers[0].bias[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"layers\.0\.bias"):
        save_checkpoint(tmp_path / "a", model)
    with pytest.raises(CheckpointError, match=r"ema/network\.layers\.0\.bias"):
        save_checkpoint(tmp_path / "a", small(), ema=model)
    assert not (tmp_path / "a").exists()
    save_checkpoint(tmp_path / "a", model, allow_nonfinite=True)
    with pytest.warns(
        RuntimeWarning, match=r"NaN or infinity in the weights network\.layers\.0\.bias"
    ):
        found = load_checkpoint(tmp_path / "a")
    assert bool(found.model.network.layers[0].bias[0].isnan())


def test_a_folder_whose_newest_is_damaged(tmp_path, good):
    """The one before is used, and the damage is said."""
    save_checkpoint(tmp_path, small(), step=5)
    (tmp_path / "step-00000006.safetensors").write_bytes(good[:-5])
    with pytest.warns(RuntimeWarning, match="step-00000006"):
        assert load_checkpoint(tmp_path).step == 5
    (tmp_path / "step-00000005.safetensors").write_bytes(good[:50])
    with pytest.raises(CheckpointError, match="step-00000006") as caught:
        load_checkpoint(tmp_path)
    assert caught.value.kind == "corrupt"


def test_a_folder_whose_newest_is_hostile(tmp_path):
    """Passed over is what broke, never what somebody put there."""
    save_checkpoint(tmp_path, small(), step=5)
    (tmp_path / "step-00000006.safetensors").write_bytes(pickle.dumps([1]))
    with pytest.raises(CheckpointError, match="step-00000006") as caught:
        load_checkpoint(tmp_path)
    assert caught.value.kind == "unsafe"


def test_a_large_table_of_betas_is_a_tensor(tmp_path):
    chain = DDPM(torch.linspace(1e-4, 0.02, 77, dtype=torch.float64) * 1.1)
    model = ScoreModel(MLP(2, width=4, depth=1), chain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_checkpoint(save_checkpoint(tmp_path / "a", model))
    assert torch.equal(found.model.sde.betas, chain.betas)
