"""What a model says about data: the variational bound."""

from sdekit.likelihood.decoder import Decoder
from sdekit.likelihood.elbo import ELBO, RateDistortion, elbo

__all__ = ["ELBO", "Decoder", "RateDistortion", "elbo"]
