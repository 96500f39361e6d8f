"""`sdekit demo`: a well-known tutorial's wrong mode weights, shown, explained and mended."""

from __future__ import annotations

import io
import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdekit.cli.folders import as_json, claim_folder, write
from sdekit.cli.options import Common
from sdekit.cli.terminal import Terminal

if TYPE_CHECKING:
    from sdekit.cli.story import Exact, Outcome, Story

__all__ = ["OPTIONS", "run"]

_SUMMARY = "summary.json"
_COMMAND = "sdekit demo"


@dataclass(frozen=True, kw_only=True)
class Demo(Common):
    """Train a well-known tutorial's DDPM, show that its mode weights are wrong, and mend them.

    The data are 0.2 N((3, 3), I) + 0.8 N((-3, -3), I), the chain has T = 100 steps. Writes
    index.html, summary.json, samples.npz, pictures and an animation; replaces its own output.

    Examples:
      sdekit demo
      sdekit demo --quick --out quick
    """

    out: Path = Path("demo")
    """the folder"""
    quick: bool = False
    """the same files from smaller networks and fewer training steps"""


OPTIONS = Demo


def run(options: Demo, terminal: Terminal) -> int:
    """Tell the story; returns the exit code."""
    began = time.monotonic()
    claim_folder(
        options.out, allowed=options.overwrite or _is_demo(options.out), how="--overwrite"
    )
    from sdekit.cli.device import device_of
    from sdekit.cli.story import FULL, QUICK, Story, sentence

    story = Story(
        QUICK if options.quick else FULL, options.seed, device_of(options.device), terminal
    )
    terminal.say("data: 0.2 N((3, 3), I) + 0.8 N((-3, -3), I)")
    known = story.exact()
    _open(terminal, story, known)
    terminal.say("the same from samples, with a trained network too:")
    outcomes: dict[str, Outcome] = {}
    for outcome in story.run():
        outcomes[outcome.key] = outcome
        terminal.say(f"  {outcome.label:43} {outcome.weight:.3f} +/- {outcome.stderr:.3f}")
    alpha_bar = float(story.short.alphas_bar[-1])
    why = sentence(alpha_bar, outcomes)
    terminal.say()
    terminal.wrap(why)
    terminal.say()
    summary = _summary(options, story, known, outcomes, why)
    _write(options.out, story, known, outcomes, summary, terminal, began)
    terminal.say(f"wrote {options.out / 'index.html'} ({time.monotonic() - began:.0f} s)")
    return 0


def _open(terminal: Terminal, story: Story, known: Exact) -> None:
    """The exact numbers: before any sampling, and before any network."""
    from sdekit.cli.story import EXACT_RUNS

    terminal.say(
        "ancestral sampling with the exact score, T = 100, by quadrature, no sample drawn:"
    )
    for line in str(known.budget).splitlines():
        terminal.say(f"  {line}")
    terminal.say(f"weight of the large mode, {story.truth:g} in the data:")
    for key, weight in known.weights.items():
        terminal.say(f"  {EXACT_RUNS[key]:43} {weight:.4f} exactly")
    terminal.say()


def _is_demo(out: Path) -> bool:
    """Whether a folder holds the output of an earlier demo."""
    try:
        found = json.loads((out / _SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("command") == _COMMAND


def _summary(
    options: Demo, story: Story, known: Exact, outcomes: dict[str, Outcome], why: str
) -> dict[str, Any]:
    """Every number that is printed, what it was made with, and, apart, what varies: the times."""
    import torch

    from sdekit import __version__

    runs = {
        key: {
            "label": o.label, "process": o.process, "model": o.model, "start": o.start,
            "sampler": o.sampler, "n": len(o.x), "nfe": o.nfe, "weight": o.weight,
            "stderr": o.stderr, "mean_probability": o.probability,
        }
        for key, o in outcomes.items()
    }  # fmt: skip
    return {
        "command": _COMMAND,
        "data": repr(story.target),
        "truth": story.truth,
        "exact": {
            "about": "ancestral sampling with the exact score, by quadrature, without a sample",
            "weights": known.weights,
            "attribution": known.budget.to_json(),
        },
        "runs": runs,
        "sentence": why,
        "alpha_bar_T": {
            "T = 100": float(story.short.alphas_bar[-1]),
            "T = 1000": float(story.long.alphas_bar[-1]),
        },
        "settings": {
            "quick": options.quick, "seed": options.seed, "device": options.device,
            **asdict(story.size), "chains": [repr(story.short), repr(story.long)],
            "network": "mlp", "parametrization": "eps", "weighting": "simple",
        },
        "training_loss": story.losses,
        "versions": {
            "sdekit": __version__, "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "timing": {
            "about": "the only part that differs between two runs on one machine",
            "sampling_seconds": {key: round(o.seconds, 3) for key, o in outcomes.items()},
        },
    }  # fmt: skip


def _write(
    out: Path,
    story: Story,
    known: Exact,
    outcomes: dict[str, Outcome],
    summary: dict[str, Any],
    terminal: Terminal,
    began: float,
) -> None:
    """The samples, the pictures, the page, the numbers last: they mark the folder as complete."""
    import numpy as np

    from sdekit.cli.demo_page import page
    from sdekit.cli.demo_pictures import pictures

    buffer = io.BytesIO()
    np.savez(buffer, **{key: o.x.numpy() for key, o in outcomes.items()})  # type: ignore[arg-type]
    write(out / "samples.npz", buffer.getvalue())
    made: dict[str, bytes] = {}
    todo = pictures(story, known, outcomes)
    with terminal.progress("pictures", len(todo)) as advance:
        for done, (name, draw) in enumerate(todo.items()):
            advance(done, name)
            made[name] = draw()
            write(out / name, made[name])
    write(out / "index.html", page(summary, made).encode())
    summary["timing"]["total_seconds"] = round(time.monotonic() - began, 1)
    write(out / _SUMMARY, as_json(summary))
