"""The command line: `sdekit COMMAND [options]`, the same as `python -m sdekit`.

Only the name of the command is looked at here. Its module is imported when it is chosen, so that
`sdekit --help` and `sdekit --version` answer at once, without torch. A module holds a dataclass of
options, `OPTIONS`, and a function `run(options, terminal)` that returns the exit code:

    0    done
    1    a run or a check failed
    2    wrong use: a bad option, an unknown name, a missing file, a folder that holds something
    130  interrupted
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

__all__ = ["COMMANDS", "main"]

# name -> (module, what it does, an example)
COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "demo": (
        "sdekit.cli.demo",
        "a tutorial's wrong mode weights: shown, explained, mended",
        "sdekit demo --out demo",
    ),
    "train": (
        "sdekit.cli.train",
        "train a score model on a named target or a file of points",
        "sdekit train --target tutorial --sde vp --out runs/vp",
    ),
    "sample": (
        "sdekit.cli.sample",
        "draw samples from a checkpoint, with any sampler",
        "sdekit sample runs/vp --sampler heun --steps 50 --out vp.npz",
    ),
    "diagnose": (
        "sdekit.cli.diagnose",
        "why samples are wrong, in exact numbers, and what would mend it",
        'sdekit diagnose --target tutorial --sde "ddpm(n=100)" --sampler ancestral',
    ),
    "compare": (
        "sdekit.cli.compare",
        "which sampler, at how many network calls, on which SDE: one page",
        "sdekit compare --quick --out compared",
    ),
    "likelihood": (
        "sdekit.cli.likelihood",
        "log-likelihoods of data in nats and bits, with what they may be off by",
        "sdekit likelihood runs/vp --budget",
    ),
    "verify": (
        "sdekit.cli.verify",
        "check the mathematics of any SDE, sampler, model or loss, yours too",
        "sdekit verify vp",
    ),
    "list": (
        "sdekit.cli.listing",  # a submodule `list` would hide the built-in here
        "what has a name: SDEs, targets, samplers, grids, weightings",
        "sdekit list samplers",
    ),
}


def _help() -> str:
    """The text of `sdekit --help`."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {what}" for name, (_, what, _) in COMMANDS.items()]
    examples = [f"  {example}" for _, _, example in COMMANDS.values()]
    return "\n".join(
        [
            "usage: sdekit COMMAND [options]",
            "",
            "A score-SDE toolkit: train score models, sample with any solver, check every formula",
            "",
            "commands:",
            *rows,
            "",
            "options:",
            "  -h, --help     this text; `sdekit COMMAND --help` shows a command's options",
            "  --version      the version",
            "  --debug        after a failure, where in the code it happened",
            "",
            "examples:",
            *examples,
            "",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after `sdekit`; those of the process by default.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for name in ("stdout", "stderr"):  # None where the process was started with it closed
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # for good
        if hasattr(getattr(sys, name), "reconfigure"):  # a terminal that cannot show a character
            getattr(sys, name).reconfigure(errors="replace")
    # Threads that wait must sleep, not spin: with other work on the machine, spinning ones make a
    # small network's step a hundred times slower. Read once, when torch is first imported.
    # NumPy's BLAS has threads of its own, which always spin, and only small work here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from sdekit.cli.failure import guarded

    return guarded(_main, words, debug="--debug" in words)


def _main(words: list[str]) -> int:
    from sdekit.errors import ConfigError

    words = [word for word in words if word != "--debug"]
    name = words[0] if words else ""
    if name in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if name == "--version":
        from sdekit import __version__

        sys.stdout.write(f"sdekit {__version__}\n")
        return 0
    if name in COMMANDS:
        from importlib import import_module

        from sdekit.cli.options import parse
        from sdekit.cli.terminal import Terminal

        module = import_module(COMMANDS[name][0])
        return int(module.run(parse(module.OPTIONS, name, words[1:]), Terminal()))
    if not name:
        raise ConfigError(f"name a command: {', '.join(COMMANDS)}; see sdekit --help")
    from difflib import get_close_matches

    options = ["--help", "--version", "--debug"]
    close = get_close_matches(name, options if name.startswith("-") else COMMANDS, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    what = "option" if name.startswith("-") else "command"
    raise ConfigError(f"no {what} {name!r}; {hint}Commands: {', '.join(COMMANDS)}")
