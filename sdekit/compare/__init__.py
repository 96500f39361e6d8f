"""From a question to a table: which sampler, at how many network calls, on which SDE.

    experiment = Experiment(target="tutorial", sdes=["vp", "ve"], samplers=["ddim", "heun"],
                            calls=[8, 16, 32], metrics=["exact_wasserstein", "mode_weights"])
    rows = run(experiment, out="compared")
    page = report("compared")

An `Experiment` is spelled out in `experiment`; `cell` is one of its cells and `measure` what is
done in one; `workers` and `clusters` are where cells run, `runner` sees to it that each runs once,
`store` is the folder. `analysis` says who wins and how sure that is; `reporting` writes the page.
"""

from sdekit.compare.analysis import front, slopes, winners
from sdekit.compare.experiment import Experiment
from sdekit.compare.reporting import render, report
from sdekit.compare.runner import run

__all__ = ["Experiment", "front", "render", "report", "run", "slopes", "winners"]
