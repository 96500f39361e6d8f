"""Likelihoods: by the probability flow, by the variational bound, in nats and bits."""

from sdekit.likelihood.bits import Quantization, bits_per_dim, dequantize
from sdekit.likelihood.budget import Budget
from sdekit.likelihood.density import LogProb, log_prob
from sdekit.likelihood.latents import decode, encode, slerp

__all__ = [
    "Budget", "LogProb", "Quantization", "bits_per_dim", "decode", "dequantize", "encode",
    "log_prob", "slerp",
]  # fmt: skip
