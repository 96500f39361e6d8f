"""What `sdekit likelihood` found: its tables, its JSON and its columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from sdekit.cli.measured import Bound, Flowed
from sdekit.cli.subject import Subject
from sdekit.cli.summary import HEAD, Summary, finite
from sdekit.cli.terminal import Terminal
from sdekit.errors import ConfigError

__all__ = ["Findings"]

_CAUSES = {
    "probes": "the divergence is estimated; more --probes or --divergence exact lower it",
    "solver": "the tolerances; smaller --rtol and --atol lower it",
    "prior": "the latents are not quite of the prior's law; the corrected number lacks it",
    "truncation": "the data are taken with the noise that they carry at t_min = {t_min:.3g}",
    "change": "at t_min = {t_min:.3g} there is so much noise that its effect is a rough estimate",
}


@dataclass(frozen=True, eq=False)
class Findings:
    """The numbers, and what they are said of.

    Attributes:
        subject: the model and the data.
        options: of the command, with the defaults filled in.
        flow: what the probability flow gave, if asked.
        bound: what the variational bound gave, if asked.
    """

    subject: Subject
    options: Any
    flow: Flowed | None
    bound: Bound | None

    # the numbers --------------------------------------------------------------------------------

    @cached_property
    def exact(self) -> Tensor | None:
        """The law's own log-density at the samples [(n,)]; None where none is known."""
        if self.subject.law is None or self.subject.data.cells is not None:
            return None
        try:
            value: Tensor = self.subject.law.log_prob(self.subject.data.x.double())
        except ConfigError:  # a law without a density
            return None
        return value.cpu()

    @cached_property
    def summaries(self) -> dict[str, dict[str, Summary]]:
        """By method and unit."""
        found: dict[str, dict[str, Summary]] = {}
        if self.flow is not None:
            found["ode"] = self._units(Summary.of(self.flow.nats), of_levels=False)
            if self.flow.corrected is not None:
                found["ode"]["corrected"] = Summary.of(self.flow.corrected)
        if self.bound is not None:
            nats = Summary.of(self.bound.nats, self.bound.times_stderr)
            found["elbo"] = self._units(nats, of_levels=self.bound.of_levels)
        if self.exact is not None:
            found["exact"] = {"nats": Summary.of(self.exact)}
        return found

    def _units(self, nats: Summary, *, of_levels: bool) -> dict[str, Summary]:
        """The same in all units that it has."""
        data = self.subject.data
        dim = data.x[0].numel()
        per_dim = -1 / (dim * math.log(2))
        found = {}
        levels = nats if of_levels else None
        if not of_levels:
            # -nats / (D ln 2): of the density, so that it depends on the units of x
            found = {"nats": nats, "minus_nats_per_dim_ln2": nats.scaled(per_dim)}
            if data.levels is not None and self.options.dequantize == "uniform":
                levels = nats.scaled(1.0, dim * math.log(data.levels.width))
        if levels is not None:
            found |= {"nats_of_levels": levels, "bits_per_dim": levels.scaled(per_dim)}
        return found

    @property
    def errors(self) -> dict[str, Summary]:
        """What separates each number from the law's own density."""
        if self.exact is None:
            return {}
        found: dict[str, Summary] = {}
        if self.flow is not None:
            found["ode"] = Summary.of(self.flow.nats - self.exact)
            if self.flow.corrected is not None:
                found["ode, corrected"] = Summary.of(self.flow.corrected - self.exact)
        if self.bound is not None and not self.bound.of_levels:
            found["elbo"] = Summary.of(self.bound.nats - self.exact, self.bound.times_stderr)
        return found

    @property
    def largest(self) -> str:
        """The line of the budget with the largest mean size."""
        assert self.flow is not None
        sizes = {name: float(value.abs().mean()) for name, value in self.flow.lines.items()}
        del sizes["total"]
        return max(sizes, key=lambda name: sizes[name])

    @property
    def sentence(self) -> str:
        """That line in words."""
        assert self.flow is not None
        name, lines = self.largest, self.flow.lines
        size, total = (float(lines[each].abs().mean()) for each in (name, "total"))
        if not math.isfinite(size):
            return "One probe says nothing about its own error: take --probes 2 or more."
        return (
            f"The largest line of the budget is {name}, {size:.2g} nats on average of "
            f"{total:.2g} in all: {_CAUSES[name].format(t_min=self.flow.t_min)}."
        )

    # on the terminal ----------------------------------------------------------------------------

    def say(self, terminal: Terminal) -> None:
        """Print the tables."""
        terminal.say(HEAD)
        for method, units in self.summaries.items():
            for unit, summary in units.items():
                name = _name(method, unit)
                if unit != "minus_nats_per_dim_ln2" or "bits_per_dim" not in units:
                    terminal.say(summary.line(f"{method}, {name}"))
        terminal.say()
        if self.exact is not None:
            terminal.say(f"{'nats, minus exact':<24}{'mean':>12}{'+/-':>12}{'largest':>12}")
            for name, off in self.errors.items():
                numbers = (off.mean, off.half_width, float(off.values.abs().max()))
                terminal.say(f"{name:<24}" + "".join(f"{value:>12.2e}" for value in numbers))
            terminal.say()
        if self.flow is not None and self.flow.lines:
            terminal.say(f"{'budget (99 %), nats':<24}{'mean size':>12}{'largest':>12}")
            for name, line in self.flow.lines.items():
                size, most = float(line.abs().mean()), float(line.abs().max())
                terminal.say(f"{name:<24}{size:>12.2e}{most:>12.2e}")
            terminal.say()
            terminal.wrap(self.sentence)
        if self.flow is not None and self.options.divergence != "exact":
            count = self.options.probes
            many = f"{count} {self.options.divergence} probe{'s' * (count != 1)}"
            error = f"a mean standard error of {float(self.flow.stderr.mean()):.2g} nats a sample"
            terminal.wrap(f"{many}: {error if count > 1 else 'no standard error'}")

    # in files -----------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """What was found by each method; null for one that was not asked."""
        found: dict[str, Any] = {"ode": None, "elbo": None, "exact": None}
        for method, units in self.summaries.items():
            found[method] = {unit: summary.to_json() for unit, summary in units.items()}
        if self.flow is not None:
            ends = {"t_min": self.flow.t_min, "t_max": self.flow.t_max}
            found["ode"] |= {"nfe": self.flow.nfe, **ends}
            if self.options.divergence != "exact":
                found["ode"]["probes_stderr"] = finite(float(self.flow.stderr.mean()))
            if self.flow.lines:
                found["ode"]["budget"] = {
                    "lines": {name: _sizes(value) for name, value in self.flow.lines.items()},
                    "largest": self.largest, "sentence": self.sentence,
                    "nfe": self.flow.budget_nfe,
                }  # fmt: skip
        if self.bound is not None:
            parts = {name: finite(float(part.mean())) for name, part in self.bound.parts.items()}
            found["elbo"] |= {"nfe": self.bound.nfe, "parts": parts}
        if self.exact is not None:
            found["exact"]["error"] = {
                name: {**off.to_json(), **_sizes(off.values)} for name, off in self.errors.items()
            }
        return found

    @property
    def columns(self) -> dict[str, Tensor]:
        """The numbers of every sample, by name [(n,)] each."""
        columns: dict[str, Tensor] = {}
        if self.flow is not None:
            columns |= {"nats": self.flow.nats, "stderr": self.flow.stderr}
            if self.flow.corrected is not None:
                columns["corrected"] = self.flow.corrected
            columns |= {f"budget_{name}": values for name, values in self.flow.lines.items()}
        if self.bound is not None:
            columns |= {"elbo": self.bound.nats, "elbo_stderr": self.bound.stderr}
            columns |= {f"elbo_{name}": values for name, values in self.bound.parts.items()}
        if self.exact is not None:
            columns["exact"] = self.exact
        return columns

    @property
    def shown(self) -> tuple[Tensor, str]:
        """The numbers of the picture, and the name of its axis."""
        if self.flow is not None:
            return self.flow.nats, "log p(x), nats"
        assert self.bound is not None  # one of the two was asked
        return self.bound.nats, "variational bound on log p, nats"


def _name(method: str, unit: str) -> str:
    """Of a line of the table."""
    names = {
        "nats": "nats >=" if method == "elbo" else "nats",
        "minus_nats_per_dim_ln2": "-nats/(D ln 2)",
        "nats_of_levels": "nats of levels >=",
        "bits_per_dim": "bits/dim <=",
        "corrected": "corrected, nats",
    }
    return names[unit]


def _sizes(values: Tensor) -> dict[str, float | None]:
    """Mean, mean size and largest size; null where there is no finite number."""
    return {
        "mean": finite(float(values.mean())),
        "mean_size": finite(float(values.abs().mean())),
        "largest": finite(float(values.abs().max())),
    }
