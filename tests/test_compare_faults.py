"""Claim: a cell that fails is a row with its reason, a lost worker costs its cells once more."""

from __future__ import annotations

import pytest
from compare_tools import cells_of, misbehaving, small, without_times

from sdekit.compare import run
from sdekit.errors import ConfigError

__all__ = ["misbehaving"]  # a fixture


def bad(how: str, **fields: str) -> str:
    """The spelling of the sampler that fails in this way."""
    return f"misbehaving(how={how!r}{''.join(f', {k}={v!r}' for k, v in fields.items())})"


def statuses(rows):
    return {r["sampler"].partition("(")[0]: r["status"] for r in rows}


@pytest.mark.parametrize(
    ("how", "says"), [("raise", "this sampler always fails"), ("nan", "not finite")]
)
def test_one_sampler_fails_and_the_others_are_kept(tmp_path, misbehaving, how, says):
    e = small(samplers=["ddim", bad(how), "ancestral"], steps=3, sdes="vp", modules=misbehaving)
    rows = run(e, out=tmp_path, workers=0)
    assert statuses(rows) == {"ddim": "ok", "misbehaving": "FAILED", "ancestral": "ok"}
    failed = [r for r in rows if r["status"] == "FAILED"]
    assert all(says in r["reason"] for r in failed)
    assert all(r["value"] is None and r["high"] is None for r in failed)
    # a failure is a result: it is not run again
    assert run(e, out=tmp_path, workers=0) == rows


def test_a_metric_that_does_not_apply_is_no_failure(tmp_path):
    e = small(target="gaussian", metrics=["mode_weights", "sliced_wasserstein"], steps=3)
    rows = run(e, out=tmp_path, workers=0)
    assert {(r["metric"].partition("(")[0], r["status"]) for r in rows} == {
        ("mode_weights", "n/a"), ("sliced_wasserstein", "ok"),
    }  # fmt: skip
    assert all(r["reason"] for r in rows if r["status"] == "n/a")


def test_a_worker_that_dies_costs_its_cells_once_more(tmp_path, misbehaving):
    e = small(samplers=["ddim", bad("once", mark=str(tmp_path / "mark")), "ancestral"], steps=3,
              sdes="vp", modules=misbehaving)  # fmt: skip
    rows = run(e, out=tmp_path / "out", workers=2)
    assert (tmp_path / "mark").exists()
    assert set(statuses(rows).values()) == {"ok"}


@pytest.mark.slow
def test_a_cell_that_kills_its_worker_is_found_and_the_others_are_not_blamed(
    tmp_path, misbehaving
):
    e = small(
        samplers=["ddim", bad("exit"), "ancestral", "heun"],
        steps=3,
        sdes="vp",
        modules=misbehaving,
    )
    rows = run(e, out=tmp_path, workers=2)
    found = statuses(rows)
    assert found.pop("misbehaving") == "FAILED"
    assert set(found.values()) == {"ok"}
    reason = next(r["reason"] for r in rows if r["status"] == "FAILED")
    assert "worker" in reason
    alone = small(samplers=["ddim", "ancestral", "heun"], steps=3, sdes="vp", modules=misbehaving)
    run(alone, out=tmp_path / "alone", workers=0)
    kept, there = cells_of(tmp_path), cells_of(tmp_path / "alone")
    for name, cell in there.items():
        assert without_times(kept[name]) == without_times(cell)


@pytest.mark.parametrize("name", ["no_such_module", "os;exit", "../x", "", "1a"])
def test_modules_that_are_none_are_refused(name):
    with pytest.raises(ConfigError, match="modules"):
        small(modules=[name])


def test_a_checkpoint_that_is_not_there_is_refused_by_name(tmp_path):
    e = small(checkpoints=[str(tmp_path / "nothing")], samplers="ddim", steps=3, sdes="vp")
    with pytest.raises(ConfigError, match="nothing"):
        run(e, out=tmp_path / "out", workers=0)
