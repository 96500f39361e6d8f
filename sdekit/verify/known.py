"""Failures of sdekit's own objects that are meant, with their reasons.

They are listed as expected and turn red once they pass.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["KNOWN"]

# the label of an object -> the check that it fails -> why that is right
KNOWN: Mapping[str, Mapping[str, str]] = {
    "langevin(snr=0.16, rule='batch_norm', repeats=1)": {
        "batches_do_not_mix": "Song et al.'s rule takes norms as means over the batch, "
        "arXiv:2011.13456, algorithm 5; the default rule does not"
    },
    "ddpm_leading()": {
        "grid_contract": "leading spacing leaves out the noisiest steps, arXiv:2305.08891, table 2"
    },
}
