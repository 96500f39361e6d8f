"""The tables of the pages, made from the catalogue: python docs/tables.py [--check].

A page holds a region between two comments, `<!-- NAME:begin -->` and `<!-- NAME:end -->`; this
script writes what belongs between them. With `--check` it writes nothing, names the pages that are
not current, and exits with 1. Entries of plug-ins are left out.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sdekit import catalogue
from sdekit.cli.listing import claims, measured

ROOT = Path(__file__).resolve().parent.parent
ROOMS = [
    "sde", "targets", "model", "objectives", "sampling", "likelihood", "exact", "metrics",
    "training", "compare", "verify", "errors",
]  # fmt: skip


def fill(text: str, name: str, body: str) -> str:
    """The text with the region of this name replaced.

    Raises:
        ValueError: it has no such region, or more than one.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"one region {begin} ... {end} is needed")
    head, _, rest = text.partition(begin)
    return f"{head}{begin}\n{body.strip()}\n{end}{rest.partition(end)[2]}"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *map(list, rows)]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def own(kind: str) -> Mapping[str, Any]:
    """sdekit's own entries of a kind."""
    entries = catalogue(kind).items()
    return {name: entry for name, entry in entries if entry.cls.__module__.startswith("sdekit.")}


def _source(entry: Any) -> str:
    return entry.paper or "a convention of sdekit"


def _spelt(text: str) -> str:
    return f"`{text}`"


def _prior(sde: Any) -> str:
    return f"N(0, {sde.prior_std():g}^2 I)" if sde.prior_std() != 1 else "N(0, I)"


def sdes() -> str:
    """Every SDE with its defaults: where it runs, what it starts from."""
    rows = []
    for name, entry in own("sde").items():
        sde = entry.make()
        span = f"{sde.t_min:g} to {sde.t_max:g}"
        rows.append([_spelt(name), entry.doc, span, _prior(sde), _source(entry)])
    return table(["name", "what it is", "t", "starts from", "source"], rows)


def sampler_claims(sampler: Any) -> list[str]:
    """Order, calls a step and noise, as the sampler declares them."""
    return [*claims(sampler), "yes" if "noise" in sampler.needs else "no"]


def samplers() -> str:
    """Every sampler and what it claims with its defaults."""
    rows = []
    for name, entry in own("sampler").items():
        made = entry.make()
        order, calls, noise = sampler_claims(made)
        facts = [order, measured(made), calls, noise]
        rows.append([_spelt(name), entry.doc, *facts, _source(entry)])
    header = ["name", "what it is", "order", "measured", "calls a step", "noise", "source"]
    return table(header, rows)


def plain(kind: str) -> Callable[[], str]:
    """A table of name, meaning and source for a kind without claims of its own."""

    def made() -> str:
        rows = [[_spelt(name), e.doc, _source(e)] for name, e in own(kind).items()]
        return table(["name", "what it is", "source"], rows)

    return made


def metrics() -> str:
    """Every metric: what it is in, which way is better, whether it is exact."""
    rows = []
    for name, entry in own("metric").items():
        made = entry.examples()[0]
        exact = "yes" if "law" in made.needs else "no"
        rows.append([_spelt(name), entry.doc, made.unit, made.better, exact, _source(entry)])
    return table(["name", "what it is", "unit", "better", "exact", "source"], rows)


def spellings(kind: str) -> Callable[[], str]:
    """The examples of a kind, as they are written on the command line."""

    def made() -> str:
        lines = []
        for entry in own(kind).values():
            lines += [repr(e) for e in entry.examples() if repr(e).startswith(f"{entry.name}(")]
        return "```text\n" + "\n".join(lines) + "\n```"

    return made


def readme_sdes() -> str:
    """Name, meaning and source."""
    return plain("sde")()


def readme_samplers() -> str:
    """Name, meaning, order, calls and source."""
    rows = []
    for name, entry in own("sampler").items():
        order, calls, _ = sampler_claims(entry.make())
        rows.append([_spelt(name), entry.doc, order, calls, _source(entry)])
    return table(["name", "what it is", "order", "calls a step", "source"], rows)


def reference() -> str:
    """Directives that document every public name of every room, by the module that defines it.

    The page is filled with it when Sphinx reads it (conf.py), so that the file stays short.
    """
    parts = []
    for room in ROOMS:
        module = importlib.import_module(f"sdekit.{room}")
        homes: dict[str, list[str]] = {}
        constants = []
        for name in module.__all__:
            home = getattr(getattr(module, name), "__module__", "")
            if not home.startswith("sdekit."):
                constants.append(name)
                continue
            homes.setdefault(home, []).append(name)
        lines = [f"## sdekit.{room}", ""]
        if module.__name__ not in homes:
            lines += [(inspect.getdoc(module) or "").partition("\n")[0], ""]
        if constants:
            lines += ["Tables: " + ", ".join(_spelt(name) for name in constants) + ".", ""]
        for home in sorted(homes):
            members = f"   :members: {', '.join(homes[home])}"
            lines += ["```{eval-rst}", f".. automodule:: {home}", members]
            lines += ["   :show-inheritance:", "```", ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


# page -> region -> what fills it
REGIONS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"sdes": readme_sdes, "samplers": readme_samplers},
    "docs/sdes.md": {
        "sdes": sdes,
        "spellings": spellings("sde"),
        "targets": plain("target"),
    },
    "docs/samplers.md": {
        "samplers": samplers,
        "spellings": spellings("sampler"),
        "grids": plain("grid"),
    },
    "docs/compare.md": {"metrics": metrics},
}


def stale(*, write: bool) -> list[str]:
    """The pages whose regions are not what the catalogue says; with `write` they are mended."""
    found = []
    for page, regions in REGIONS.items():
        path = ROOT / page
        text = before = path.read_text(encoding="utf-8")
        for name, make in regions.items():
            text = fill(text, name, make())
        if text != before:
            found.append(page)
            if write:
                path.write_text(text, encoding="utf-8")
    return found


def main() -> int:
    """Write the regions, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where stale")
    check = parser.parse_args().check
    pages = stale(write=not check)
    for page in pages:
        print(f"{page}: {'not current; run python docs/tables.py' if check else 'written'}")
    return 1 if check and pages else 0


if __name__ == "__main__":
    sys.exit(main())
