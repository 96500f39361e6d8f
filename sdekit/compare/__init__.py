"""From a question to a table: which sampler, at how many network calls, on which SDE.

experiment = Experiment(target="tutorial", sdes=["vp", "ve"], samplers=["ddim", "heun"],
calls=[8, 16, 32], metrics=["exact_wasserstein", "mode_weights"])
rows = run(experiment, out="compared")
page = report("compared")
"""

from sdekit.compare.experiment import Experiment
from sdekit.compare.runner import run

__all__ = ["Experiment", "run"]
